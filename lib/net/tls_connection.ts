/**
 * A connection that is encrypted, as one thread uses it. The library makes and opens its records until
 * pages come or go in lists, as they do on channels; from then on they are made and opened here, where
 * libcrypto is (see `tls_records.ts`): full records gathered from scattered pages, and decrypted bytes
 * straight to the pages.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory, Errno, send, shutdown } from "../../ffi/libc.ts";
import { tlsBye, tlsPending, tlsReceive, TlsResult, tlsSend } from "../../ffi/libgnutls.ts";
import { MessageFlag, Shutdown } from "../../ffi/linux.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { IovecList } from "../memory/iovec_list.ts";
import { Mutex } from "../sync/mutex.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import type { Connection } from "./connection.ts";
import type { Progress } from "./progress.ts";
import { isEndedByPeer, isReadable, setBlocking } from "./socket.ts";
import { isRepeated, recordFailure } from "./tls_failure.ts";
import { RECORD_BYTES, RecordReader, RecordWriter } from "./tls_records.ts";
import type { Link } from "./transport.ts";

/** Room for what is looked at before it is received. */
const HEAD_BYTES = 64;

/** One direction or both, of one thread. To be disposed when that is done with it. */
export class TlsConnection implements Connection, Disposable {
  readonly #link: Link;
  readonly #fd: number;
  readonly #state: number;
  readonly #progress: Progress;
  readonly #lock: Mutex | undefined;
  /** Where the library finds small pieces as one record. */
  readonly #record = new Arena(RECORD_BYTES);
  /** What was looked at and not received yet. */
  readonly #ahead = new Arena(HEAD_BYTES);
  #aheadFrom = 0;
  #aheadTo = 0;
  /** One range as a list. */
  readonly #range = new IovecList();
  /** Undefined before the first list, null where the library does it all. */
  #writer: RecordWriter | null | undefined;
  #reader: RecordReader | null | undefined;
  #receivesLists = false;

  constructor(
    link: Link,
    session: Stoppable,
    progress: Progress,
    lock: SharedArrayBuffer | undefined,
  ) {
    this.#link = link;
    this.#fd = link.fd;
    this.#state = link.state!;
    this.#progress = progress;
    if (lock !== undefined) {
      this.#lock = new Mutex(new Int32Array(lock), 0, session);
      // Two threads would have to agree on what the library is told.
      this.#writer = null;
      this.#reader = null;
    }
    if (link.head !== undefined) {
      this.#ahead.u8.set(link.head);
      this.#aheadTo = link.head.byteLength;
    }
  }

  sendList(list: IovecList): void {
    if (this.#writer === undefined) this.#writer = RecordWriter.open(this.#state) ?? null;
    if (this.#writer === null) this.#sendByLibrary(list);
    else this.#sendSealed(this.#writer, list);
  }

  send(address: number, bytes: number): void {
    this.#range.clear();
    this.#range.append(address, bytes);
    if (this.#writer) this.#sendSealed(this.#writer, this.#range);
    else this.#sendByLibrary(this.#range);
  }

  endSending(): void {
    if (this.#enter()) {
      this.#writer?.handBack();
      tlsBye(this.#state);
      this.#leave();
    }
    shutdown(this.#fd, Shutdown.WRITE);
  }

  isEndedByPeer(waitMs: number): boolean {
    return isEndedByPeer(this.#fd, waitMs);
  }

  receiveList(list: IovecList): void {
    this.#receivesLists = true;
    while (list.bytes > 0) {
      if (this.#receiveOnce(list, false) === 0) throw this.#progress.ended();
    }
  }

  receive(address: number, bytes: number): void {
    const got = this.receiveSome(address, bytes, bytes, false);
    if (got === 0) throw this.#progress.ended();
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    const range = this.#range;
    range.clear();
    range.append(address, bytesMax);
    const left = bytesMax - bytesMin;
    while (range.bytes > left) {
      const idle = atBoundary && range.bytes === bytesMax;
      if (this.#receiveOnce(range, idle) !== 0) continue;
      if (idle) return 0;
      throw this.#progress.ended();
    }
    return bytesMax - range.bytes;
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
    if (this.#aheadTo > this.#aheadFrom) return true;
    return this.#reader ? this.#reader.holdsBytes : tlsPending(this.#state) > 0;
  }

  [Symbol.dispose](): void {
    this.#writer?.[Symbol.dispose]();
    this.#reader?.[Symbol.dispose]();
    this.#writer = null;
    this.#reader = null;
  }

  /** Takes a byte, to be received later: that a record has come does not mean that it has any. */
  #look(): "byte" | "end" | "nothing" {
    if (this.#reader) return this.#lookAt(this.#reader);
    if (this.holdsBytes) return "byte";
    if (!isReadable(this.#fd, 0) || !this.#enter()) return "nothing";
    const got = this.#receiveRecord(this.#ahead.address, 1);
    this.#leave();
    if (got > 0) {
      this.#aheadFrom = 0;
      this.#aheadTo = got;
      return "byte";
    }
    return isRepeated(got) ? "nothing" : "end";
  }

  #lookAt(reader: RecordReader): "byte" | "end" | "nothing" {
    if (this.#aheadTo > this.#aheadFrom || reader.pending > 0) return "byte";
    if (!reader.holdsBytes && !isReadable(this.#fd, 0)) return "nothing";
    this.#range.clear();
    const got = reader.receive(this.#range);
    if (got > 0) return "byte";
    return isRepeated(got) ? "nothing" : "end";
  }

  /** Receives a piece into the front of `list`: 0 at the end, -1 when it is to be tried again. */
  #receiveOnce(list: IovecList, idle: boolean): number {
    const ahead = this.#aheadTo - this.#aheadFrom;
    if (ahead > 0) {
      const bytes = Math.min(ahead, list.bytesAt(0));
      copyMemory(list.addressAt(0), this.#ahead.address + this.#aheadFrom, bytes);
      this.#aheadFrom += bytes;
      list.consume(bytes);
      return bytes;
    }
    if (!this.#reader && tlsPending(this.#state) === 0) {
      // Here and not in the library, which is not to hold up the other direction either.
      if (!isReadable(this.#fd, WAIT_TICK_MS)) return this.#again("receive", idle);
    }
    if (!this.#enter()) return this.#again("receive", idle);
    const got = this.#reader ? this.#reader.receive(list) : this.#receiveByLibrary(list);
    this.#leave();
    if (got > 0) {
      this.#progress.made("receive", got, idle);
      return got;
    }
    if (got === 0 || got === TlsResult.PREMATURE_TERMINATION || got === INVALID_SESSION) return 0;
    if (isRepeated(got)) return this.#again("receive", idle);
    throw this.#failure("receive", got);
  }

  #receiveByLibrary(list: IovecList): number {
    const got = this.#receiveRecord(list.addressAt(0), list.bytesAt(0));
    if (got <= 0) return got;
    list.consume(got);
    // Nothing of a record is left there: the next one begins where this thread reads.
    if (this.#receivesLists && this.#reader === undefined && tlsPending(this.#state) === 0) {
      this.#reader = RecordReader.open(this.#link) ?? null;
    }
    return got;
  }

  /** What is here: where it may wait, the library does so for each byte of a record, whatever happens. */
  #receiveRecord(address: number, bytes: number): number {
    setBlocking(this.#fd, false);
    const got = tlsReceive(this.#state, address, bytes);
    setBlocking(this.#fd, true);
    return got;
  }

  #sendSealed(writer: RecordWriter, list: IovecList): void {
    while (list.bytes > 0) {
      if (writer.isWornOut) this.#renewKey(writer);
      writer.seal(list);
      while (writer.bytes > 0) {
        const sent = send(this.#fd, writer.address, writer.bytes, MessageFlag.NOSIGNAL);
        if (this.#progress.made("send", sent)) writer.sent(sent);
      }
    }
  }

  #renewKey(writer: RecordWriter): void {
    for (;;) {
      const result = writer.renewKey();
      if (result === 0) return;
      if (!isRepeated(result)) throw this.#failure("send", result);
      this.#again("send", false);
    }
  }

  #sendByLibrary(list: IovecList): void {
    const record = this.#record.address;
    while (list.bytes > 0) {
      if (list.bytesAt(0) >= RECORD_BYTES) {
        list.consume(this.#sendRecord(list.addressAt(0), RECORD_BYTES));
      } else {
        list.consume(this.#sendRecord(record, list.copyFront(record, RECORD_BYTES)));
      }
    }
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
