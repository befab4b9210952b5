/**
 * Accepts the connections of one migration and finds out which is which: the main connection begins
 * with the stream's magic, a channel with its handshake (wire format, sections 2 and 3.2).
 *
 * All connections are read without blocking and side by side, so a peer that connects and says
 * nothing holds up nobody; it only runs into the time limit.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, Errno, poll, recv } from "../../ffi/libc.ts";
import { MessageFlag, PollEvent } from "../../ffi/linux.ts";
import { HandshakeError, LimitError, StreamError, TimeoutError } from "../errors.ts";
import { PENDING_CONNECTIONS_MAX, WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import {
  decodeHandshake,
  HANDSHAKE_BYTES,
  handshakeUuid,
  MULTIFD_MAGIC,
} from "../wire/handshake.ts";
import { STREAM_MAGIC } from "../wire/main_stream.ts";
import { acceptSocket, configureSocket, type Listener } from "./socket.ts";

/** What to accept. */
export interface AcceptOptions {
  /** Number of channels, or undefined to take as many as have connected when the stream begins. */
  readonly channels: number | undefined;
  /** Most channels when the number is open. */
  readonly channelsMax: number;
  /** Undefined: any, but the same on all channels. */
  readonly uuid: Uint8Array | undefined;
  /** Limit until the first connection, in milliseconds. */
  readonly acceptMs: number;
  /** Limit from the first connection until all are identified, in milliseconds. */
  readonly connectMs: number;
}

/** The main connection and the number of channels. */
export interface AcceptedConnections {
  readonly mainFd: number;
  readonly peer: string;
  readonly channels: number;
  /** The uuid that all channels named. */
  readonly uuid: Uint8Array;
}

interface Pending {
  readonly fd: number;
  readonly peer: string;
  /** Where its handshake is collected in the arena. */
  readonly at: number;
  filled: number;
  isChannel: boolean;
  /** Whether fewer bytes than a magic have arrived. */
  short: boolean;
}

const POLLFD_BYTES = 8;

/** See the module comment. Used once; owns connections until it hands them over. */
export class Acceptor implements Disposable {
  readonly #listener: Listener;
  readonly #options: AcceptOptions;
  readonly #session: Stoppable;
  readonly #onChannel: (channel: number, fd: number, peer: string) => void;
  readonly #pollfds = new Arena((PENDING_CONNECTIONS_MAX + 1) * POLLFD_BYTES);
  readonly #handshakes = new Arena((PENDING_CONNECTIONS_MAX + 1) * HANDSHAKE_BYTES);
  readonly #freeHandshakes: number[];
  readonly #channels = new Set<number>();
  #pending: Pending[] = [];
  #main: { fd: number; peer: string } | undefined;
  #uuid: Uint8Array | undefined;

  /** @param onChannel Takes over each channel's descriptor, blocking and configured. */
  constructor(
    listener: Listener,
    options: AcceptOptions,
    session: Stoppable,
    onChannel: (channel: number, fd: number, peer: string) => void,
  ) {
    this.#listener = listener;
    this.#options = options;
    this.#uuid = options.uuid;
    this.#session = session;
    this.#onChannel = onChannel;
    this.#freeHandshakes = Array.from(
      { length: PENDING_CONNECTIONS_MAX + 1 },
      (_, index) => index * HANDSHAKE_BYTES,
    );
  }

  /**
   * Runs until the main connection and all channels are there; undefined when the session stopped.
   *
   * @throws {TimeoutError} when they do not come in time, {HandshakeError} for a bad handshake.
   */
  run(): AcceptedConnections | undefined {
    const acceptDeadline = performance.now() + this.#options.acceptMs;
    let deadline = acceptDeadline;
    let anybody = false;
    for (;;) {
      if (this.#session.stopping) return undefined;
      const accepted = this.#poll();
      // Who only looks whether somebody listens, and goes again, starts no clock.
      if (anybody !== this.#isAnybodyHere()) {
        anybody = !anybody;
        deadline = anybody ? performance.now() + this.#options.connectMs : acceptDeadline;
      }
      if (this.#main !== undefined && this.#isComplete(accepted)) {
        const { fd, peer } = this.#main;
        this.#main = undefined;
        return { mainFd: fd, peer, channels: this.#channels.size, uuid: this.#uuid! };
      }
      if (performance.now() >= deadline) throw this.#late(anybody);
    }
  }

  /** Closes what was not handed over. Nobody else is let in, so the listener loses its name. */
  [Symbol.dispose](): void {
    this.#listener.removeFile();
    for (const { fd } of this.#pending) close(fd);
    if (this.#main !== undefined) close(this.#main.fd);
    this.#pending = [];
    this.#main = undefined;
  }

  #isAnybodyHere(): boolean {
    return this.#pending.length > 0 || this.#channels.size > 0 || this.#main !== undefined;
  }

  #isComplete(accepted: boolean): boolean {
    const { channels } = this.#options;
    if (channels !== undefined) return this.#channels.size === channels;
    // A source writes to the main connection only after every channel has connected, so nobody is
    // missing once the backlog is empty and everybody in it has been identified.
    return !accepted && this.#pending.length === 0 && this.#channels.size > 0;
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
    const waitMs = this.#main !== undefined && this.#pending.length === 0 ? 1 : WAIT_TICK_MS;
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
    for (;;) {
      const connection = acceptSocket(this.#listener);
      if (connection === undefined) return accepted;
      accepted = true;
      const at = this.#freeHandshakes.pop();
      if (at === undefined) {
        close(connection.fd);
        throw new LimitError(
          "ERR_MULTIFD_LIMIT_CONNECTIONS",
          `Cannot accept connection: ${PENDING_CONNECTIONS_MAX} wait to be identified, the most allowed`,
        );
      }
      this.#pending.push({ ...connection, at, filled: 0, isChannel: false, short: false });
    }
  }

  /** Reads what has arrived; true when the connection needs no more attention here. */
  #identify(pending: Pending): boolean {
    if (!pending.isChannel) {
      const address = this.#handshakes.address + pending.at;
      const got = recv(pending.fd, address, 4, MessageFlag.PEEK | MessageFlag.DONTWAIT);
      if (got === 0) return this.#forget(pending);
      pending.short = got > 0 && got < 4;
      if (got < 4) return false;
      const magic = this.#handshakes.view.getUint32(pending.at);
      if (magic === STREAM_MAGIC) return this.#takeMain(pending);
      if (magic !== MULTIFD_MAGIC) {
        throw new HandshakeError(
          "ERR_MULTIFD_HANDSHAKE_MAGIC",
          `Cannot accept connection: it begins with 0x${magic.toString(16)}, must be 0x5145564d or 0x11223344`,
          { peer: pending.peer },
        );
      }
      pending.isChannel = true;
    }
    return this.#readHandshake(pending);
  }

  #readHandshake(pending: Pending): boolean {
    const got = recv(
      pending.fd,
      this.#handshakes.address + pending.at + pending.filled,
      HANDSHAKE_BYTES - pending.filled,
      MessageFlag.DONTWAIT,
    );
    if (got === -Errno.EAGAIN || got === -Errno.EINTR) return false;
    if (got <= 0) {
      throw new HandshakeError(
        "ERR_MULTIFD_HANDSHAKE_TRUNCATED",
        `Cannot accept channel: the connection ended after ${pending.filled} bytes, must be ${HANDSHAKE_BYTES}`,
        { peer: pending.peer },
      );
    }
    pending.filled += got;
    if (pending.filled < HANDSHAKE_BYTES) return false;
    const view = new DataView(this.#handshakes.buffer, pending.at, HANDSHAKE_BYTES);
    const { channels, channelsMax } = this.#options;
    this.#uuid ??= handshakeUuid(view);
    const channel = decodeHandshake(view, this.#uuid, channels ?? channelsMax);
    if (this.#channels.has(channel)) {
      throw new HandshakeError(
        "ERR_MULTIFD_HANDSHAKE_DUPLICATE",
        `Cannot accept channel: channel id ${channel} is connected already`,
        { channel, peer: pending.peer },
      );
    }
    this.#channels.add(channel);
    this.#freeHandshakes.push(pending.at);
    configureSocket(pending.fd, this.#listener.endpoint.kind === "tcp");
    this.#onChannel(channel, pending.fd, pending.peer);
    return true;
  }

  #takeMain(pending: Pending): boolean {
    if (this.#main !== undefined) {
      throw new StreamError(
        "ERR_MULTIFD_STREAM_DUPLICATE",
        "Cannot accept connection: there is a main connection already",
        { peer: pending.peer },
      );
    }
    this.#freeHandshakes.push(pending.at);
    configureSocket(pending.fd, this.#listener.endpoint.kind === "tcp");
    this.#main = { fd: pending.fd, peer: pending.peer };
    return true;
  }

  #forget(pending: Pending): boolean {
    this.#freeHandshakes.push(pending.at);
    close(pending.fd);
    return true;
  }

  #late(anybody: boolean): TimeoutError {
    const { channels, acceptMs, connectMs } = this.#options;
    if (!anybody) {
      return new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_ACCEPT",
        `Cannot accept connections: nobody connected within ${acceptMs} ms`,
      );
    }
    const main = this.#main === undefined ? "no main connection" : "the main connection";
    return new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_CONNECT",
      `Cannot accept connections: ${main} and ${this.#channels.size} of ${channels ?? "any number of"} channels came within ${connectMs} ms; ` +
        "both sides must use the same number of channels",
    );
  }
}
