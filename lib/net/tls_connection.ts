/**
 * A connection that is encrypted, as one thread uses it: full records gathered from scattered pages go
 * out, decrypted bytes come straight to the pages.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory, Errno, shutdown } from "../../ffi/libc.ts";
import { tlsBye, tlsPending, tlsReceive, TlsResult, tlsSend } from "../../ffi/libgnutls.ts";
import { Shutdown } from "../../ffi/linux.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import { Mutex } from "../sync/mutex.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import type { Connection } from "./connection.ts";
import type { Progress } from "./progress.ts";
import { isEndedByPeer, isReadable } from "./socket.ts";
import { isRepeated, recordFailure } from "./tls_failure.ts";
import type { Link } from "./transport.ts";

/** Most bytes of a record. */
const RECORD_BYTES = 16_384;
/** Room for what is looked at before it is received. */
const HEAD_BYTES = 64;

/** One direction or both, of one thread. */
export class TlsConnection implements Connection {
  readonly #fd: number;
  readonly #state: number;
  readonly #progress: Progress;
  readonly #lock: Mutex | undefined;
  /** Where small pieces become one record. */
  readonly #record = new Arena(RECORD_BYTES);
  /** What was looked at and not received yet. */
  readonly #ahead = new Arena(HEAD_BYTES);
  #aheadFrom = 0;
  #aheadTo = 0;

  constructor(
    link: Link,
    session: Stoppable,
    progress: Progress,
    lock: SharedArrayBuffer | undefined,
  ) {
    this.#fd = link.fd;
    this.#state = link.state!;
    this.#progress = progress;
    if (lock !== undefined) this.#lock = new Mutex(new Int32Array(lock), 0, session);
    if (link.head !== undefined) {
      this.#ahead.u8.set(link.head);
      this.#aheadTo = link.head.byteLength;
    }
  }

  sendList(list: IovecList): void {
    const record = this.#record.address;
    while (list.bytes > 0) {
      if (list.frontBytes >= RECORD_BYTES) {
        list.consume(this.#sendRecord(list.frontAddress, RECORD_BYTES));
      } else {
        list.consume(this.#sendRecord(record, list.copyFront(record, RECORD_BYTES)));
      }
    }
  }

  send(address: number, bytes: number): void {
    for (let done = 0; done < bytes;) {
      done += this.#sendRecord(address + done, Math.min(bytes - done, RECORD_BYTES));
    }
  }

  endSending(): void {
    if (this.#enter()) {
      tlsBye(this.#state);
      this.#leave();
    }
    shutdown(this.#fd, Shutdown.WRITE);
  }

  isEndedByPeer(waitMs: number): boolean {
    return isEndedByPeer(this.#fd, waitMs);
  }

  receiveList(list: IovecList, bytesMin: number): void {
    for (let done = 0; done < bytesMin;) {
      const got = this.#receiveOnce(list.frontAddress, list.frontBytes, false);
      if (got === 0) throw this.#progress.ended();
      if (got > 0) {
        list.consume(got);
        done += got;
      }
    }
  }

  receive(address: number, bytes: number): void {
    const got = this.receiveSome(address, bytes, bytes, false);
    if (got === 0) throw this.#progress.ended();
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    let done = 0;
    while (done < bytesMin) {
      const idle = atBoundary && done === 0;
      const got = this.#receiveOnce(address + done, bytesMax - done, idle);
      if (got === 0) {
        if (idle) return 0;
        throw this.#progress.ended();
      }
      if (got > 0) done += got;
    }
    return done;
  }

  isReadable(waitMs: number): boolean {
    if (this.holdsBytes) return true;
    return isReadable(this.#fd, waitMs) && this.#look() !== "nothing";
  }

  hasEnded(): boolean {
    return this.#look() === "end";
  }

  hasUnreadBytes(): boolean {
    return this.#look() === "byte";
  }

  get holdsBytes(): boolean {
    return this.#aheadTo > this.#aheadFrom || tlsPending(this.#state) > 0;
  }

  /** Takes a byte, to be received later: that a record has come does not mean that it has any. */
  #look(): "byte" | "end" | "nothing" {
    if (this.holdsBytes) return "byte";
    if (!isReadable(this.#fd, 0) || !this.#enter()) return "nothing";
    const got = tlsReceive(this.#state, this.#ahead.address, 1);
    this.#leave();
    if (got > 0) {
      this.#aheadFrom = 0;
      this.#aheadTo = got;
      return "byte";
    }
    return isRepeated(got) ? "nothing" : "end";
  }

  /** Bytes received, 0 at the end, -1 when it is to be tried again. */
  #receiveOnce(address: number, bytesMax: number, idle: boolean): number {
    const ahead = this.#aheadTo - this.#aheadFrom;
    if (ahead > 0) {
      const bytes = Math.min(ahead, bytesMax);
      copyMemory(address, this.#ahead.address + this.#aheadFrom, bytes);
      this.#aheadFrom += bytes;
      return bytes;
    }
    if (this.#lock !== undefined && tlsPending(this.#state) === 0) {
      // The other direction is not to wait for this one's peer.
      if (!isReadable(this.#fd, WAIT_TICK_MS)) return this.#again("receive", idle);
    }
    if (!this.#enter()) return this.#again("receive", idle);
    const got = tlsReceive(this.#state, address, bytesMax);
    this.#leave();
    if (got > 0) {
      this.#progress.made("receive", got);
      return got;
    }
    if (got === 0 || got === TlsResult.PREMATURE_TERMINATION || got === INVALID_SESSION) return 0;
    if (isRepeated(got)) return this.#again("receive", idle);
    throw this.#failure("receive", got);
  }

  /** Sends one record; its length. */
  #sendRecord(address: number, bytes: number): number {
    if (!this.#enter()) this.#again("send", false);
    let sent = tlsSend(this.#state, address, bytes);
    this.#leave();
    while (isRepeated(sent)) {
      // It is encrypted and kept by the library, which goes on with it.
      this.#again("send", false);
      if (!this.#enter()) continue;
      sent = tlsSend(this.#state, 0, 0);
      this.#leave();
    }
    if (sent <= 0) throw this.#failure("send", sent);
    this.#progress.made("send", sent);
    return sent;
  }

  #again(action: "send" | "receive", idle: boolean): -1 {
    this.#progress.made(action, -Errno.EAGAIN, idle);
    return -1;
  }

  #failure(action: "send" | "receive", result: number): Error {
    if (result === TlsResult.PUSH_ERROR || result === INVALID_SESSION) {
      this.#progress.made(action, -Errno.EPIPE); // throws, of a stop or the peer's end
    }
    if (result === TlsResult.PULL_ERROR) this.#progress.made(action, -Errno.ECONNRESET);
    this.#again(action, false); // throws when the session was stopped
    return recordFailure(action, result, this.#state);
  }

  #enter(): boolean {
    return this.#lock === undefined || this.#lock.lock();
  }

  #leave(): void {
    this.#lock?.unlock();
  }
}

/** The library's word for a connection that has failed or ended before. */
const INVALID_SESSION = -10;
