/**
 * One connected socket as a channel or the main thread uses it: complete gather writes and scatter
 * reads that tolerate partial transfers and interruptions, end with the session, and give up on a
 * peer that stalls. All socket traffic of the library goes through here.
 *
 * @module
 */
import { Errno, errnoName, recv, recvmsg, send, sendmsg, shutdown } from "../../ffi/libc.ts";
import { MessageFlag, Shutdown } from "../../ffi/linux.ts";
import { ChannelError, TimeoutError } from "../errors.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import type { ActiveSession } from "../sync/semaphore.ts";
import { isReadable, peek } from "./socket.ts";

/** Limits of one connection in milliseconds. */
export interface ConnectionLimits {
  /** Without a byte where the peer owes nothing yet, and none on the session's other connections. */
  readonly idleMs: number;
  /** Without a byte in the middle of something. */
  readonly stallMs: number;
}

/** See the module comment. Does not own the descriptor. */
export class Connection {
  readonly fd: number;
  readonly #session: ActiveSession;
  readonly #limits: ConnectionLimits;
  readonly #besides: boolean;
  /** When the current lack of progress began; 0 while there is progress. */
  #waitingSince = 0;
  /** The session's activity as it was then. */
  #activity = 0;

  /**
   * @param besides Whether the peer may be silent here, even in the middle of something, as long as it
   * moves bytes on the session's other connections.
   */
  constructor(fd: number, session: ActiveSession, limits: ConnectionLimits, besides = false) {
    this.fd = fd;
    this.#besides = besides;
    this.#session = session;
    this.#limits = limits;
  }

  /** Writes all bytes of `list` and leaves it empty. */
  sendList(list: IovecList): void {
    while (list.bytes > 0) {
      const sent = sendmsg(this.fd, list.message(), MessageFlag.NOSIGNAL);
      if (this.#progressed("send", sent)) list.consume(sent);
    }
  }

  /** Writes `bytes` bytes at `address`. */
  send(address: number, bytes: number): void {
    for (let done = 0; done < bytes;) {
      const sent = send(this.fd, address + done, bytes - done, MessageFlag.NOSIGNAL);
      if (this.#progressed("send", sent)) done += sent;
    }
  }

  /**
   * Reads until at least `bytesMin` bytes of `list` are filled; more may be, up to all of them.
   *
   * @throws {ChannelError} when the peer ends the connection first.
   */
  receiveList(list: IovecList, bytesMin: number): void {
    for (let done = 0; done < bytesMin;) {
      const got = recvmsg(this.fd, list.message(), 0);
      if (got === 0) throw this.#ended();
      if (this.#progressed("receive", got)) {
        list.consume(got);
        done += got;
      }
    }
  }

  /** Reads exactly `bytes` bytes to `address`. */
  receive(address: number, bytes: number): void {
    const got = this.receiveSome(address, bytes, bytes, false);
    if (got === 0) throw this.#ended();
  }

  /**
   * Reads at least `bytesMin` and at most `bytesMax` bytes.
   *
   * @param atBoundary Whether the peer owes nothing: then the end of the connection is returned as 0
   * and the idle limit applies until the first byte.
   */
  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    let done = 0;
    while (done < bytesMin) {
      const idle = atBoundary && done === 0;
      const got = recv(this.fd, address + done, bytesMax - done, 0);
      if (got === 0) {
        if (idle) return 0;
        throw this.#ended();
      }
      if (this.#progressed("receive", got, idle)) done += got;
    }
    return done;
  }

  /** Tells the peer that nothing follows; it may still speak. */
  endSending(): void {
    shutdown(this.fd, Shutdown.WRITE);
  }

  /** Whether a byte or the end of the connection is here within `waitMs`. */
  isReadable(waitMs: number): boolean {
    return isReadable(this.fd, waitMs);
  }

  /** Whether the peer has ended the connection and nothing is left to be read; takes no byte. */
  hasEnded(): boolean {
    return peek(this.fd) === "end";
  }

  /** Whether the peer has sent something that is not read yet. */
  hasUnreadBytes(): boolean {
    return peek(this.fd) === "byte";
  }

  /**
   * True when `result` is a count; false when the call is to be repeated.
   *
   * @param idle Whether the peer owes nothing here.
   */
  #progressed(action: "send" | "receive", result: number, idle = false): boolean {
    if (result > 0) {
      this.#waitingSince = 0;
      this.#session.noteActivity();
      return true;
    }
    if (this.#session.stopping) {
      throw new ChannelError(
        "ERR_MULTIFD_CHANNEL_STOPPED",
        `Cannot ${action}: the session was stopped`,
      );
    }
    if (result !== -Errno.EAGAIN && result !== -Errno.EINTR) {
      const errno = errnoName(-result);
      throw new ChannelError("ERR_MULTIFD_CHANNEL", `Cannot ${action}: ${errno}`, { errno });
    }
    const now = performance.now();
    const limitMs = idle ? this.#limits.idleMs : this.#limits.stallMs;
    const elsewhere = (idle || this.#besides) && this.#activity !== this.#session.activity;
    if (this.#waitingSince === 0 || elsewhere) {
      this.#waitingSince = now;
      this.#activity = this.#session.activity;
    }
    if (now - this.#waitingSince >= limitMs) {
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_STALL",
        `Cannot ${action}: the peer moved no byte for ${limitMs} ms`,
      );
    }
    return false;
  }

  #ended(): ChannelError {
    if (this.#session.stopping) {
      return new ChannelError(
        "ERR_MULTIFD_CHANNEL_STOPPED",
        "Cannot receive: the session was stopped",
      );
    }
    return new ChannelError(
      "ERR_MULTIFD_CHANNEL_ENDED",
      "Cannot receive: the peer ended the connection in the middle of the data",
    );
  }
}
