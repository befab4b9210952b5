/**
 * What a kind of endpoint is made of. A new one is a file with such a record, and its line in
 * `endpoint.ts`; nothing else of the library asks of which kind an endpoint is.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";
import type { Transport } from "./transport.ts";

/** A kind of endpoint; `Address` is what its text says, as plain data that may go to any thread. */
export interface EndpointKind<Address extends { readonly kind: string }> {
  /** How it is written, for messages. */
  readonly forms: readonly string[];
  /** How bytes travel over its connections. */
  readonly transport: Transport;
  /**
   * Reads an endpoint.
   *
   * @returns undefined for the text of another kind.
   * @throws {TypeError} for one of this kind that cannot be.
   */
  parse(text: string): Address | undefined;
  /** The text that `parse()` reads. */
  format(address: Address): string;
  /**
   * Replaces names by numbers, on the event loop and within `limitMs`.
   *
   * @throws {SystemError} when a name is not known, {TimeoutError} after the limit.
   */
  resolve(address: Address, limitMs: number): Promise<Address>;
  /**
   * Listens; where a port is open, a free one is taken.
   *
   * @throws {SystemError} when the address is in use or not ours.
   */
  listen(address: Address, backlog: number): Listener<Address>;
  /**
   * Connects and configures the connection. A peer that does not listen yet is an error: to try
   * again is the caller's decision.
   *
   * @param onSocket Called with the descriptor before any wait, so that a stop can shut it down.
   * @returns The connected descriptor.
   * @throws {SystemError} when the kernel refuses, {TimeoutError} after the limit.
   */
  connect(
    address: Address,
    limitMs: number,
    session: Stoppable,
    onSocket: (fd: number) => void,
  ): number;
}

/** Listens, without blocking. */
export interface Listener<Address = unknown> {
  /** To be waited on. */
  readonly fd: number;
  /** Where it really listens. */
  readonly endpoint: Address;
  /**
   * Accepts one waiting connection, or none.
   *
   * @throws {SystemError} when the process or the machine has no room for one more.
   */
  accept(): Accepted | undefined;
  /** Makes an accepted descriptor what a connection expects, see {@linkcode configureSocket}. */
  configure(fd: number): void;
  /** Removes what it leaves behind under its name, so that the next one may have that. */
  removeName(): void;
}

/** An accepted connection, non-blocking, and its other end as text. */
export interface Accepted {
  readonly fd: number;
  readonly peer: string;
}
