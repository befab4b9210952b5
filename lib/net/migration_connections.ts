/**
 * The connections of senders that want to be received, as far as they have said what they are. One
 * sender has one main connection and one for each channel, and nothing in them tells whose they are:
 * when two senders come at once, their channels mix.
 *
 * The first main connection wins. The second one is closed by the caller, which makes its sender fail
 * and end its channels. Until then all channels are kept, several with one id if need be, and nobody
 * is received before each id has exactly one that lives, and has had it for a while. So pages of two
 * memories never meet.
 *
 * @module
 */
import { close } from "../../ffi/libc.ts";
import { HandshakeError } from "../errors.ts";
import { CANDIDATE_CONNECTIONS_MAX, SENDERS_SETTLE_MS } from "../limits.ts";
import { EndSign, isEndedByPeer } from "./socket.ts";
import type { Opening } from "./transport.ts";

/** A connection that has said what it is. */
interface Candidate {
  readonly fd: number;
  readonly peer: string;
  readonly opening: Opening;
}

/** Closes a connection that nobody uses. */
export function closeCandidate({ fd, opening }: Candidate): void {
  opening[Symbol.dispose]();
  close(fd);
}

/** See the module comment. Owns the connections that it has taken until they are handed over. */
export class MigrationConnections implements Disposable {
  readonly #channels = new Map<number, Candidate[]>();
  #main: Candidate | undefined;
  #count = 0;
  /** When a second sender was last seen to be there or to go. */
  #mixedAt: number | undefined;
  /** When the first of these connections came, in milliseconds of `performance.now()`. */
  since: number | undefined;

  /** The main connection, if it is there. */
  get main(): Candidate | undefined {
    return this.#main;
  }

  /** Number of channels that are there. */
  get channels(): number {
    return this.#channels.size;
  }

  /** Whether more than one sender has been here. */
  get isMixed(): boolean {
    return this.#mixedAt !== undefined;
  }

  /**
   * Takes a main connection; one whose sender has gone is replaced.
   *
   * @returns The connection that is one too many, for the caller to close.
   */
  takeMain(candidate: Candidate): Candidate | undefined {
    this.since ??= performance.now();
    const before = this.#main;
    if (before !== undefined) {
      this.#mixedAt = performance.now();
      if (!isEndedByPeer(before.fd, 0)) return candidate;
    }
    this.#main = candidate;
    return before;
  }

  /** Notes that a second sender is here, a channel of which the caller closes. */
  noteMixed(): void {
    this.#mixedAt = performance.now();
  }

  /** Notes that a second sender is here if the one of the main connection has ended it. */
  noteMixedIfEnded(): void {
    if (this.#main !== undefined && isEndedByPeer(this.#main.fd, 0)) this.noteMixed();
  }

  /** Takes a channel. @returns false when there are too many connections already. */
  takeChannel(id: number, candidate: Candidate): boolean {
    if (this.#count >= CANDIDATE_CONNECTIONS_MAX) return false;
    this.since ??= performance.now();
    const others = this.#channels.get(id) ?? [];
    if (others.length > 0) this.#mixedAt = performance.now();
    this.#channels.set(id, [...others, candidate]);
    this.#count++;
    return true;
  }

  /**
   * Lets go of connections whose senders have ended them. With one sender only those go that were
   * reset, with which all they carried is lost: others may have sent everything, and gone.
   *
   * @returns How many were closed.
   */
  dropEnded(): number {
    const signs = this.#mixedAt === undefined ? EndSign.RESET : EndSign.ENDED;
    let dropped = 0;
    if (this.#main !== undefined && isEndedByPeer(this.#main.fd, 0, signs)) {
      closeCandidate(this.#main);
      this.#main = undefined;
      dropped++;
    }
    for (const [id, candidates] of this.#channels) {
      const alive = candidates.filter(({ fd }) => !isEndedByPeer(fd, 0, signs));
      if (alive.length === candidates.length) continue;
      for (const candidate of candidates) if (!alive.includes(candidate)) closeCandidate(candidate);
      dropped += candidates.length - alive.length;
      this.#count -= candidates.length - alive.length;
      if (alive.length === 0) this.#channels.delete(id);
      else this.#channels.set(id, alive);
    }
    if (dropped > 0) this.#mixedAt = performance.now();
    if (this.#main === undefined && this.#channels.size === 0) {
      this.since = undefined;
      this.#mixedAt = undefined;
    }
    return dropped;
  }

  /** Whether all connections are those of one sender. */
  get isSettled(): boolean {
    if (this.#mixedAt === undefined) return true;
    if (performance.now() - this.#mixedAt < SENDERS_SETTLE_MS) return false;
    return this.#duplicate() === undefined;
  }

  /** @throws {HandshakeError} when an id still has more than one channel. */
  requireSingle(): void {
    const id = this.#duplicate();
    if (id === undefined) return;
    throw new HandshakeError(
      "ERR_MULTIFD_HANDSHAKE_DUPLICATE",
      `Cannot accept channel: channel id ${id} is connected more than once, must be once`,
      { channel: id, peer: this.#channels.get(id)![0].peer },
    );
  }

  /** Hands the settled connections over, each channel to `onChannel`, and returns the main one. */
  handOver(onChannel: (id: number, candidate: Candidate) => void): Candidate {
    const main = this.#main!;
    for (const [id, [candidate]] of this.#channels) {
      this.#channels.delete(id);
      onChannel(id, candidate);
    }
    this.#main = undefined;
    return main;
  }

  /** Closes what was not handed over. */
  [Symbol.dispose](): void {
    for (const candidates of this.#channels.values()) candidates.forEach(closeCandidate);
    if (this.#main !== undefined) closeCandidate(this.#main);
    this.#channels.clear();
    this.#main = undefined;
  }

  #duplicate(): number | undefined {
    for (const [id, candidates] of this.#channels) if (candidates.length > 1) return id;
    return undefined;
  }
}
