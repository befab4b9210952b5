/**
 * Accepts the connections of one migration and finds out which is which: the main connection begins
 * with the stream's magic, a channel with its handshake (wire format, section 2).
 *
 * All connections are read without blocking and side by side, so a peer that connects and says
 * nothing holds up nobody. Whoever is no sender is a stranger: it is dropped and counted, and the wait
 * goes on. A sender with a mistake in its handshake, or one that is not there with all its connections
 * in time, ends the wait, since its user wants to know.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, poll } from "../../ffi/libc.ts";
import { PollEvent } from "../../ffi/linux.ts";
import { HandshakeError, MultifdError, SystemError, TimeoutError } from "../errors.ts";
import { PENDING_CONNECTIONS_MAX, SENDERS_SETTLE_MS, WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import {
  decodeHandshake,
  HANDSHAKE_BYTES,
  handshakeUuid,
  MULTIFD_MAGIC,
} from "../wire/handshake.ts";
import { STREAM_MAGIC } from "../wire/main_stream.ts";
import { closeCandidate, MigrationConnections } from "./migration_connections.ts";
import type { Accepted, Listener } from "./endpoint_kind.ts";
import type { Link, Opening, Transport } from "./transport.ts";

/** What to accept. */
interface AcceptOptions {
  /** Number of channels, or undefined to take as many as have connected when the stream begins. */
  readonly channels: number | undefined;
  /** Most channels when the number is open. */
  readonly channelsMax: number;
  /** Undefined: any, but the same on all channels. */
  readonly uuid: Uint8Array | undefined;
  /** Limit until the first connection of a sender, in milliseconds. */
  readonly acceptMs: number;
  /** Limit from a sender's first connection to its last, and for each to say what it is. */
  readonly connectMs: number;
}

/** The main connection and the number of channels. */
export interface AcceptedConnections {
  readonly main: Link;
  readonly peer: string;
  readonly channels: number;
  /** The uuid that all channels named. */
  readonly uuid: Uint8Array;
}

/** Who is told of connections. */
interface AcceptHooks {
  /** Takes over each channel's connection, blocking and configured, once all are there. */
  onChannel(channel: number, link: Link, peer: string): void;
  /** A connection was dropped that belongs to nobody who is received. */
  onStranger(): void;
  /** Somebody could not open a connection, for that reason. */
  onRefused(reason: string): void;
}

interface Pending {
  readonly fd: number;
  readonly peer: string;
  readonly opening: Opening;
  /** Where its handshake is collected in the arena. */
  readonly at: number;
  /** Its number among all that were accepted. */
  readonly sequence: number;
  readonly acceptedMs: number;
  filled: number;
  isChannel: boolean;
  /** Whether fewer bytes than a magic have arrived. */
  short: boolean;
}

const POLLFD_BYTES = 8;
const MAGIC_BYTES = 4;
/** How a handshake of TLS begins: its record's type and version. */
const TLS_HANDSHAKE = 0x16_03_01;

/** See the module comment. Used once; owns connections until it hands them over. */
export class Acceptor implements Disposable {
  readonly #listener: Listener;
  readonly #transport: Transport;
  readonly #options: AcceptOptions;
  readonly #session: Stoppable;
  readonly #hooks: AcceptHooks;
  readonly #pollfds = new Arena((PENDING_CONNECTIONS_MAX + 1) * POLLFD_BYTES);
  readonly #handshakes = new Arena(PENDING_CONNECTIONS_MAX * HANDSHAKE_BYTES);
  readonly #freeHandshakes: number[];
  readonly #connections = new MigrationConnections();
  #pending: Pending[] = [];
  #sequence = 0;
  /** How many had been accepted when the main connection was there and the backlog empty. */
  #sequenceAtMain: number | undefined;
  #strangers = 0;
  /** Why a connection was dropped, if its sender should know. */
  #refused: string | undefined;
  #uuid: Uint8Array | undefined;

  constructor(
    listener: Listener,
    transport: Transport,
    options: AcceptOptions,
    session: Stoppable,
    hooks: AcceptHooks,
  ) {
    this.#listener = listener;
    this.#transport = transport;
    this.#options = options;
    this.#uuid = options.uuid;
    this.#session = session;
    this.#hooks = hooks;
    this.#freeHandshakes = Array.from(
      { length: PENDING_CONNECTIONS_MAX },
      (_, index) => index * HANDSHAKE_BYTES,
    );
  }

  /**
   * Runs until the main connection and all channels are there; undefined when the session stopped.
   *
   * @throws {TimeoutError} when they do not come in time, {HandshakeError} for a sender's mistake.
   */
  run(): AcceptedConnections | undefined {
    const acceptDeadline = performance.now() + this.#options.acceptMs;
    for (;;) {
      if (this.#session.stopping) return undefined;
      const accepted = this.#poll();
      this.#drop(this.#connections.dropEnded());
      if (this.#isComplete(accepted)) {
        const channels = this.#connections.channels;
        const { opening, peer } = this.#connections.handOver((channel, candidate) =>
          this.#hooks.onChannel(channel, candidate.opening.link, candidate.peer),
        );
        return { main: opening.link, peer, channels, uuid: this.#uuid! };
      }
      this.#checkTime(acceptDeadline);
    }
  }

  /** The main connection of whoever came, as far as that can be told by now; it stays with this object. */
  findMain(): Link | undefined {
    const { main } = this.#connections;
    if (main !== undefined) return main.opening.link;
    for (const { fd, at, isChannel, opening } of this.#pending) {
      const address = this.#handshakes.address + at;
      if (isChannel || !this.#isOpen(opening)) continue;
      if (opening.peek(address, MAGIC_BYTES) < MAGIC_BYTES) continue;
      if (this.#handshakes.view.getUint32(at) !== STREAM_MAGIC) continue;
      this.#listener.configure(fd);
      return opening.link;
    }
    return undefined;
  }

  /** Closes what was not handed over. Nobody else is let in, so the listener loses its name. */
  [Symbol.dispose](): void {
    this.#listener.removeName();
    for (const pending of this.#pending) closeCandidate(pending);
    this.#pending = [];
    this.#connections[Symbol.dispose]();
  }

  #isComplete(accepted: boolean): boolean {
    const { main, channels, isSettled } = this.#connections;
    if (main === undefined) {
      this.#sequenceAtMain = undefined;
      return false;
    }
    // A source writes to the main connection only after every channel has connected, so nobody is
    // missing once the backlog was empty and everybody who was in it has been identified.
    if (this.#sequenceAtMain === undefined && !accepted) this.#sequenceAtMain = this.#sequence;
    const { channels: wanted } = this.#options;
    if (!isSettled || channels === 0 || (wanted !== undefined && channels !== wanted)) return false;
    const last = this.#sequenceAtMain ?? Infinity;
    // One channel too many may be about to say so; with a number to go by that takes no longer.
    const since = wanted === undefined ? -Infinity : performance.now() - SENDERS_SETTLE_MS;
    return this.#pending.every(
      ({ sequence, acceptedMs }) => sequence >= last || acceptedMs < since,
    );
  }

  /** Drops who has been silent for too long, and ends the wait when there is no time left. */
  #checkTime(acceptDeadline: number): void {
    const { acceptMs, connectMs } = this.#options;
    const now = performance.now();
    this.#forgetAll(this.#pending.filter(({ acceptedMs }) => now - acceptedMs >= connectMs));
    const { since, isMixed } = this.#connections;
    if (since !== undefined) {
      const limitMs = connectMs + (isMixed ? 2 * SENDERS_SETTLE_MS : 0);
      if (now - since < limitMs) return;
      // Whoever came before the sender, or between its connections, and says nothing is none of it.
      this.#forgetAll([...this.#pending]);
      if (this.#isComplete(false)) return;
      throw this.#late();
    }
    // Who has come in time may still say that it is a sender.
    if (now < acceptDeadline) return;
    if (this.#pending.some(({ acceptedMs }) => acceptedMs < acceptDeadline)) return;
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_ACCEPT",
      `Cannot accept connections: no sender connected within ${acceptMs} ms` +
        (this.#strangers === 0 ? "" : `, and ${this.#strangers} connections were none`) +
        (this.#refused === undefined ? "" : `: ${this.#refused}`),
    );
  }

  #forgetAll(silent: readonly Pending[]): void {
    for (const pending of silent) this.#forget(pending);
    this.#pending = this.#pending.filter((pending) => !silent.includes(pending));
  }

  /** One round: waits at most a tick, accepts, reads. Returns whether a connection was accepted. */
  #poll(): boolean {
    const { view } = this.#pollfds;
    // Less than a magic stays readable without an end: those are looked at once a tick.
    const fds = [this.#listener.fd, ...this.#pending.map(({ fd, short }) => (short ? -1 : fd))];
    fds.forEach((fd, index) => {
      view.setInt32(index * POLLFD_BYTES, fd, true);
      view.setInt16(index * POLLFD_BYTES + 4, PollEvent.IN, true);
    });
    // With everything identified the backlog only has to be found empty.
    const { main, isMixed } = this.#connections;
    const waitMs = main !== undefined && !isMixed && this.#pending.length === 0 ? 1 : WAIT_TICK_MS;
    const ready = poll(this.#pollfds.address, fds.length, waitMs);
    if (ready < 0 || (ready === 0 && !fds.includes(-1))) return false;
    // One by one: when the next one throws, what was handed over must not be closed here as well.
    for (const pending of this.#pending) {
      if (this.#identify(pending)) this.#pending = this.#pending.filter((one) => one !== pending);
    }
    return this.#accept();
  }

  #accept(): boolean {
    let accepted = false;
    // No more in one go than there is room for: then those that are here are looked at first.
    for (let count = 0; count < PENDING_CONNECTIONS_MAX; count++) {
      const connection = this.#acceptOne();
      if (connection === undefined) return accepted;
      accepted = true;
      const at = this.#freeHandshakes.pop() ?? this.#makeRoom();
      this.#pending.push({
        ...connection,
        opening: this.#transport.open(connection.fd, connection.peer),
        at,
        sequence: this.#sequence++,
        acceptedMs: performance.now(),
        filled: 0,
        isChannel: false,
        short: false,
      });
    }
    return accepted;
  }

  /** Where descriptors run out, strangers are the ones to go. */
  #acceptOne(): Accepted | undefined {
    for (;;) {
      try {
        return this.#listener.accept();
      } catch (error) {
        if (!(error instanceof SystemError) || this.#pending.length === 0) throw error;
        this.#freeHandshakes.push(this.#makeRoom());
      }
    }
  }

  /** Drops the connection that has been silent for longest; returns its place in the arena. */
  #makeRoom(): number {
    this.#forget(this.#pending.shift()!);
    return this.#freeHandshakes.pop()!;
  }

  /** Reads what has arrived; true when the connection needs no more attention here. */
  #identify(pending: Pending): boolean {
    const isOpen = this.#isOpen(pending.opening);
    if (isOpen === undefined) return this.#forget(pending);
    if (!isOpen) return false;
    if (!pending.isChannel) {
      const got = pending.opening.peek(this.#handshakes.address + pending.at, MAGIC_BYTES);
      if (got === -Errno.EAGAIN || got === -Errno.EINTR) return false;
      if (got <= 0) {
        const { earlyEnd } = pending.opening;
        if (earlyEnd !== undefined) this.#noteRefused(earlyEnd);
        return this.#forget(pending);
      }
      pending.short = got < MAGIC_BYTES;
      if (pending.short) return false;
      const magic = this.#handshakes.view.getUint32(pending.at);
      if (magic >>> 8 === TLS_HANDSHAKE) {
        const { peer } = pending;
        this.#noteRefused(`${peer} began with TLS, which is not on here`);
      }
      if (magic === STREAM_MAGIC) return this.#takeMain(pending);
      if (magic !== MULTIFD_MAGIC) return this.#forget(pending);
      pending.isChannel = true;
    }
    return this.#readHandshake(pending);
  }

  /** Undefined when it cannot be opened, which ends nobody's wait; who waits in vain hears of it. */
  #isOpen(opening: Opening): boolean | undefined {
    try {
      return opening.advance();
    } catch (error) {
      if (!(error instanceof MultifdError)) throw error;
      this.#noteRefused(error.message);
      return undefined;
    }
  }

  #noteRefused(reason: string): void {
    this.#refused ??= reason;
    this.#hooks.onRefused(reason);
  }

  #readHandshake(pending: Pending): boolean {
    const got = pending.opening.read(
      this.#handshakes.address + pending.at + pending.filled,
      HANDSHAKE_BYTES - pending.filled,
    );
    if (got === -Errno.EAGAIN || got === -Errno.EINTR) return false;
    if (got <= 0) return this.#forget(pending);
    pending.filled += got;
    if (pending.filled < HANDSHAKE_BYTES) return false;
    const view = new DataView(this.#handshakes.buffer, pending.at, HANDSHAKE_BYTES);
    const { channels, channelsMax } = this.#options;
    if (this.#isOfAnother(view)) {
      this.#connections.noteMixed();
      return this.#forget(pending);
    }
    const channel = this.#decode(view, pending, channels ?? channelsMax);
    if (!this.#connections.takeChannel(channel, pending)) return this.#forget(pending);
    // Whoever had gone before this channel came has left its main connection behind.
    if (pending.sequence >= (this.#sequenceAtMain ?? Infinity))
      this.#connections.noteMixedIfEnded();
    this.#freeHandshakes.push(pending.at);
    this.#listener.configure(pending.fd);
    return true;
  }

  /** Whether a channel belongs to another guest than those that are here already. */
  #isOfAnother(view: DataView): boolean {
    if (this.#uuid === undefined || this.#connections.channels === 0) return false;
    return !handshakeUuid(view).every((byte, at) => byte === this.#uuid![at]);
  }

  /** @throws {HandshakeError} for a sender that does not fit. */
  #decode(view: DataView, { peer }: Pending, channels: number): number {
    try {
      // Any uuid will do; then it is that of the first channel until all of them are gone.
      if (this.#connections.channels === 0) this.#uuid = this.#options.uuid;
      const channel = decodeHandshake(view, this.#uuid ?? handshakeUuid(view), channels);
      this.#uuid ??= handshakeUuid(view);
      return channel;
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      throw new HandshakeError(error.code, error.message, { peer });
    }
  }

  #takeMain(pending: Pending): boolean {
    this.#freeHandshakes.push(pending.at);
    this.#listener.configure(pending.fd);
    const second = this.#connections.takeMain(pending);
    if (second === undefined) return true;
    closeCandidate(second);
    this.#drop(1);
    return true;
  }

  #forget(pending: Pending): true {
    this.#freeHandshakes.push(pending.at);
    closeCandidate(pending);
    this.#drop(1);
    return true;
  }

  #drop(strangers: number): void {
    this.#strangers += strangers;
    for (let count = 0; count < strangers; count++) this.#hooks.onStranger();
  }

  #late(): Error {
    const { channels, connectMs } = this.#options;
    this.#connections.requireSingle();
    const { main, channels: came } = this.#connections;
    const advice =
      main !== undefined && came === 0
        ? "the source must have multifd on (libvirt: --parallel, without --postcopy)"
        : "both sides must use the same number of channels";
    return new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_CONNECT",
      `Cannot accept connections: ${main ? "the" : "no"} main connection and ${came} of ${channels ?? "any number of"} channels came within ${connectMs} ms; ${advice}` +
        (this.#refused === undefined ? "" : `; ${this.#refused}`),
    );
  }
}
