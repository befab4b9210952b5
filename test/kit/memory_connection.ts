import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import type { IovecList } from "../../lib/memory/iovec_list.ts";
import type { Connection } from "../../lib/net/connection.ts";

/**
 * A connection without a socket: what is sent on it is received from it, by the same thread, and its
 * reads return no more at a time than a script says. It has ended where its bytes end.
 */
export class MemoryConnection implements Connection {
  readonly holdsBytes = false;
  readonly #steps: readonly number[];
  #arena: Arena;
  #length: number;
  #at = 0;
  #step = 0;

  constructor(bytes: Uint8Array = new Uint8Array(0), steps: readonly number[] = [65_536]) {
    this.#arena = new Arena(Math.max(1, bytes.byteLength));
    this.#arena.u8.set(bytes);
    this.#length = bytes.byteLength;
    this.#steps = steps;
  }

  sendList(list: IovecList): void {
    list.forEach((address, bytes) => this.send(address, bytes));
    list.clear();
  }

  send(address: number, bytes: number): void {
    const grown = new Arena(this.#length + bytes);
    grown.u8.set(this.#arena.u8.subarray(0, this.#length));
    copyMemory(grown.address + this.#length, address, bytes);
    this.#arena = grown;
    this.#length += bytes;
  }

  endSending(): void {}

  isEndedByPeer(): boolean {
    return true;
  }

  receiveList(list: IovecList): void {
    while (list.bytes > 0) {
      const ranges: (readonly [number, number])[] = [];
      list.forEach((address, bytes) => ranges.push([address, bytes]));
      const [address, bytes] = ranges[0]!;
      const got = this.#take(address, bytes);
      if (got === 0) throw new Error("the stream ended in the middle");
      list.consume(got);
    }
  }

  receive(address: number, bytes: number): void {
    this.receiveSome(address, bytes, bytes, false);
  }

  receiveSome(address: number, min: number, max: number, atBoundary: boolean): number {
    let done = 0;
    while (done < min) {
      const got = this.#take(address + done, max - done);
      if (got === 0 && atBoundary && done === 0) return 0;
      if (got === 0) throw new Error("the stream ended in the middle");
      done += got;
    }
    return done;
  }

  isReadable(): boolean {
    return true;
  }

  hasEnded(): boolean {
    return !this.hasUnreadBytes();
  }

  hasUnreadBytes(): boolean {
    return this.#at < this.#length;
  }

  #take(address: number, bytesMax: number): number {
    const step = this.#steps[this.#step++ % this.#steps.length] ?? 1;
    const bytes = Math.min(step, bytesMax, this.#length - this.#at);
    if (bytes > 0) copyMemory(address, this.#arena.address + this.#at, bytes);
    this.#at += bytes;
    return bytes;
  }
}
