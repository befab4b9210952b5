/**
 * TLS over the connections of any endpoint. Full records gathered from scattered pages go out;
 * decrypted bytes come straight to the pages.
 *
 * A session of the library belongs to one thread at a time. It is made where a connection is opened,
 * goes to another thread as the link's `state`, and is freed by the transport that made it, after all
 * threads that use it have been joined. Where two threads have one direction each, they take turns, each
 * for a tick at most.
 *
 * @module
 */
import { Arena, viewOfMemory } from "../../ffi/arena.ts";
import { Errno, shutdown } from "../../ffi/libc.ts";
import {
  tlsAlert,
  tlsDeny,
  tlsFree,
  tlsHandshake,
  tlsReceive,
  TlsResult,
} from "../../ffi/libgnutls.ts";
import { tlsCipher, tlsOwnCertificate, tlsPeerName } from "../../ffi/libgnutls_facts.ts";
import { Shutdown } from "../../ffi/linux.ts";
import { ChannelError, TimeoutError, TlsError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { ActiveSession, Stoppable } from "../sync/semaphore.ts";
import type { Connection, ConnectionLimits } from "./connection.ts";
import { Progress } from "./progress.ts";
import { isReadable, peek, setBlocking } from "./socket.ts";
import { TlsConnection } from "./tls_connection.ts";
import { loadCredentials, type LoadedCredentials, type TlsSide } from "./tls_credentials.ts";
import { handshakeFailure, isRepeated } from "./tls_failure.ts";
import type { TlsConfig } from "./tls_options.ts";
import { suiteOf, type TlsSuite } from "./tls_suites.ts";
import type {
  Link,
  LinkHalves,
  Opening,
  Patience,
  ReceivingHalf,
  SendingHalf,
  SharedLink,
  Transport,
} from "./transport.ts";

/** Bytes of a connection that are looked at before it is used: those of a magic. */
const HEAD_BYTES = 64;

/** See the module comment. */
export class TlsTransport implements Transport {
  readonly #config: TlsConfig;
  readonly #sessions = new Set<number>();
  readonly #attached: TlsConnection[] = [];
  #side: TlsSide | undefined;
  #credentials: LoadedCredentials | undefined;

  constructor(config: TlsConfig) {
    this.#config = config;
  }

  prepare(side: TlsSide): readonly string[] {
    this.#side = side;
    this.#credentials ??= loadCredentials(this.#config, side);
    return this.#credentials.warnings;
  }

  open(fd: number, peer: string): Opening {
    return new TlsOpening(this.#makeSession(fd, "server"), fd, peer, this.#config, (session) =>
      this.#free(session),
    );
  }

  connect(fd: number, peer: string, limitMs: number, session: Stoppable, verdictMs = 0): Link {
    const state = this.#makeSession(fd, "client");
    const deadline = performance.now() + limitMs;
    // A library that may wait does so for each byte of a message.
    setBlocking(fd, false);
    for (;;) {
      const result = tlsHandshake(state);
      if (result === 0) {
        const head = this.#awaitVerdict(state, fd, peer, verdictMs);
        setBlocking(fd, true);
        return { fd, state, ...(head === undefined ? {} : { head }) };
      }
      if (session.stopping) {
        throw new ChannelError(
          "ERR_MULTIFD_CHANNEL_STOPPED",
          "Cannot open TLS connection: the session was stopped",
        );
      }
      if (!isRepeated(result)) {
        tlsAlert(state, result);
        throw handshakeFailure(state, result, "client", peer);
      }
      const leftMs = deadline - performance.now();
      if (leftMs > 0) {
        isReadable(fd, Math.min(WAIT_TICK_MS, leftMs));
        continue;
      }
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_TLS",
        `Cannot open TLS connection with ${peer}: no end of the handshake within ${limitMs} ms`,
        { peer },
      );
    }
  }

  attach(
    link: Link,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience: Patience = "alone",
  ): Connection {
    return this.#attach(link, session, new Progress(session, limits, patience), undefined);
  }

  encryption(link: Link): TlsSuite | undefined {
    return suiteOf(tlsCipher(link.state!));
  }

  split(link: Link): LinkHalves {
    const lock = new SharedArrayBuffer(4);
    return {
      sending: { direction: "sending", link, lock },
      receiving: { direction: "receiving", link, lock },
      both: { direction: "both", link, lock },
    };
  }

  attachSending(half: SendingHalf, session: ActiveSession, limits: ConnectionLimits): Connection {
    const progress = new Progress(session, limits, "alone");
    return this.#attach(half.link, session, progress, half.lock);
  }

  attachReceiving(
    half: ReceivingHalf,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience: Patience = "alone",
  ): Connection {
    const progress = new Progress(session, limits, patience);
    return this.#attach(half.link, session, progress, half.lock);
  }

  attachShared(
    shared: SharedLink,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience: Patience = "alone",
  ): Connection {
    const progress = new Progress(session, limits, patience);
    return this.#attach(shared.link, session, progress, shared.lock);
  }

  endReceiving({ fd }: Link): void {
    shutdown(fd, Shutdown.READ);
  }

  hasArrived({ fd }: Link): boolean {
    return peek(fd) === "byte";
  }

  [Symbol.dispose](): void {
    for (const connection of this.#attached.splice(0)) connection[Symbol.dispose]();
    for (const session of this.#sessions) tlsFree(session);
    this.#sessions.clear();
    this.#credentials?.[Symbol.dispose]();
    this.#credentials = undefined;
  }

  #attach(
    link: Link,
    session: Stoppable,
    progress: Progress,
    lock: SharedArrayBuffer | undefined,
  ): TlsConnection {
    const connection = new TlsConnection(link, session, progress, lock);
    this.#attached.push(connection);
    return connection;
  }

  /**
   * A receiver looks at this side's certificate when the handshake is complete here. What it does
   * not take should be known before anything is sent.
   *
   * @returns What the receiver has said meanwhile.
   */
  #awaitVerdict(state: number, fd: number, peer: string, waitMs: number): Uint8Array | undefined {
    const own = this.#config.kind === "x509" ? tlsOwnCertificate(state) : "not asked for";
    if (own === "not asked for" || waitMs === 0 || !isReadable(fd, waitMs)) return undefined;
    const byte = new Arena(1);
    const got = tlsReceive(state, byte.address, 1);
    if (got > 0) return byte.u8.slice(0, 1);
    if (isRepeated(got)) return undefined;
    const result = got === 0 ? TlsResult.PREMATURE_TERMINATION : got;
    // A receiver may ask for a certificate and do without one, as QEMU's with verify-peer=off.
    throw handshakeFailure(state, result, "client", peer, own === "missing");
  }

  #makeSession(fd: number, side: TlsSide): number {
    if (this.#side !== side) this.prepare(side);
    const session = this.#credentials!.settings.makeSession(fd);
    this.#sessions.add(session);
    return session;
  }

  #free(session: number): void {
    if (this.#sessions.delete(session)) tlsFree(session);
  }
}

/** The handshake of a connection that was accepted, and the first of what its peer says. */
class TlsOpening implements Opening {
  readonly #session: number;
  readonly #fd: number;
  readonly #peer: string;
  readonly #config: TlsConfig;
  readonly #release: (session: number) => void;
  readonly #head = new Uint8Array(HEAD_BYTES);
  #filled = 0;
  #ready = false;

  constructor(
    session: number,
    fd: number,
    peer: string,
    config: TlsConfig,
    release: (session: number) => void,
  ) {
    this.#session = session;
    this.#fd = fd;
    this.#peer = peer;
    this.#config = config;
    this.#release = release;
  }

  advance(): boolean {
    if (this.#ready) return true;
    const result = tlsHandshake(this.#session);
    if (isRepeated(result)) return false;
    if (result !== 0) {
      tlsAlert(this.#session, result);
      throw handshakeFailure(this.#session, result, "server", this.#peer);
    }
    this.#requireAllowed();
    this.#ready = true;
    return true;
  }

  peek(address: number, bytesMax: number): number {
    const wanted = Math.min(bytesMax, HEAD_BYTES);
    let got = 0;
    if (this.#filled < wanted) {
      got = this.#receive(wanted - this.#filled);
      if (this.#filled === 0) return got;
    }
    const bytes = Math.min(wanted, this.#filled);
    viewOfMemory(address, bytes).set(this.#head.subarray(0, bytes));
    return bytes;
  }

  read(address: number, bytesMax: number): number {
    const got = this.peek(address, bytesMax);
    if (got <= 0) return got;
    this.#head.copyWithin(0, got, this.#filled);
    this.#filled -= got;
    return got;
  }

  get earlyEnd(): string {
    return (
      `Cannot open TLS connection with ${this.#peer}: the sender ended the connection after the ` +
      "handshake; it may not take the certificate of this side"
    );
  }

  get link(): Link {
    return { fd: this.#fd, state: this.#session, head: this.#head.slice(0, this.#filled) };
  }

  [Symbol.dispose](): void {
    this.#release(this.#session);
  }

  #receive(bytes: number): number {
    const scratch = new Arena(HEAD_BYTES);
    const got = tlsReceive(this.#session, scratch.address, bytes);
    if (got > 0) {
      this.#head.set(scratch.u8.subarray(0, got), this.#filled);
      this.#filled += got;
      return got;
    }
    return isRepeated(got) ? -Errno.EAGAIN : 0;
  }

  #requireAllowed(): void {
    if (this.#config.kind !== "x509" || this.#config.allow === undefined) return;
    const name = tlsPeerName(this.#session);
    if (name !== undefined && this.#config.allow.includes(name)) return;
    tlsDeny(this.#session);
    throw new TlsError(
      "ERR_MULTIFD_TLS_NAME",
      `Cannot take TLS connection of ${this.#peer}: the sender's certificate is that of ` +
        `${name ?? "nobody"}, must be one of ${this.#config.allow.join(" | ")}`,
      { peer: this.#peer },
    );
  }
}
