/**
 * An `iovec` array with its `msghdr`, filled once per packet and consumed as the kernel takes or
 * delivers bytes. Entries are written as 32-bit words: a BigInt per page would cost more than the
 * whole hand-off.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { IOV_MAX } from "../../ffi/linux.ts";
import type { PageRuns } from "./page_runs.ts";

/*
 * iovec:  0 base pointer, 8 length
 * msghdr: 0 name, 8 namelen, 16 iov, 24 iovlen, 32 control, 40 controllen, 48 flags; 56 bytes
 */
const IOVEC_BYTES = 16;
const MSGHDR_BYTES = 56;
const MSGHDR_IOV_AT = 16;
const MSGHDR_IOVLEN_AT = 24;

/** See the module comment. The memory behind the entries must outlive their use. */
export class IovecList {
  /** Bytes not yet consumed. */
  bytes = 0;
  readonly #arena = new Arena(IOV_MAX * IOVEC_BYTES + MSGHDR_BYTES + 64);
  readonly #message = this.#arena.reserve(MSGHDR_BYTES);
  readonly #vectors = this.#arena.reserve(IOV_MAX * IOVEC_BYTES);
  #first = 0;
  #count = 0;

  /** Removes all entries. */
  clear(): void {
    this.bytes = 0;
    this.#first = 0;
    this.#count = 0;
  }

  /** Appends one range. */
  append(address: number, bytes: number): void {
    if (this.#count >= IOV_MAX) {
      throw new RangeError(`Cannot append to iovec list: it holds ${IOV_MAX} entries, the most`);
    }
    const word = (this.#vectors + this.#count * IOVEC_BYTES) >>> 2;
    const { u32 } = this.#arena;
    u32[word] = address >>> 0;
    u32[word + 1] = (address / 0x1_0000_0000) >>> 0;
    u32[word + 2] = bytes;
    u32[word + 3] = 0;
    this.#count++;
    this.bytes += bytes;
  }

  /** Appends every run of pages. */
  appendRuns(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) {
      this.append(runs.addresses[run], runs.lengths[run]);
    }
  }

  /** Calls `visit` with every range that is left. */
  forEach(visit: (address: number, bytes: number) => void): void {
    for (let entry = this.#first; entry < this.#count; entry++) {
      const at = this.#vectors + entry * IOVEC_BYTES;
      visit(this.#arena.pointerAt(at), this.#arena.pointerAt(at + 8));
    }
  }

  /** Address of what is left of the range `at` places behind the first one that has any. */
  addressAt(at: number): number {
    return this.#arena.pointerAt(this.#vectors + (this.#first + at) * IOVEC_BYTES);
  }

  /** Bytes that are left of it. */
  bytesAt(at: number): number {
    return this.#arena.u32[(this.#vectors + (this.#first + at) * IOVEC_BYTES + 8) >>> 2];
  }

  /** Copies up to `bytesMax` bytes from the front to `address`, consuming none; their number. */
  copyFront(address: number, bytesMax: number): number {
    const { u32 } = this.#arena;
    let copied = 0;
    for (let entry = this.#first; entry < this.#count && copied < bytesMax; entry++) {
      const word = (this.#vectors + entry * IOVEC_BYTES) >>> 2;
      const bytes = Math.min(u32[word + 2], bytesMax - copied);
      copyMemory(address + copied, u32[word] + u32[word + 1] * 0x1_0000_0000, bytes);
      copied += bytes;
    }
    return copied;
  }

  /** Address of a `msghdr` over the entries that are left. */
  message(): number {
    const at = this.#message;
    this.#arena.setPointer(at + MSGHDR_IOV_AT, this.vectors());
    this.#arena.u32[(at + MSGHDR_IOVLEN_AT) >>> 2] = this.count;
    return this.#arena.address + at;
  }

  /** Address of the first entry that is left. */
  vectors(): number {
    return this.#arena.address + this.#vectors + this.#first * IOVEC_BYTES;
  }

  /** Entries that are left. */
  get count(): number {
    return this.#count - this.#first;
  }

  /** Drops `bytes` bytes from the front, after the kernel has taken or filled them. */
  consume(bytes: number): void {
    this.bytes -= bytes;
    if (this.bytes === 0) {
      this.#first = this.#count;
      return;
    }
    const { u32 } = this.#arena;
    let left = bytes;
    for (;;) {
      const word = (this.#vectors + this.#first * IOVEC_BYTES) >>> 2;
      const length = u32[word + 2];
      if (left < length) {
        const base = u32[word] + u32[word + 1] * 0x1_0000_0000 + left;
        u32[word] = base >>> 0;
        u32[word + 1] = (base / 0x1_0000_0000) >>> 0;
        u32[word + 2] = length - left;
        return;
      }
      left -= length;
      this.#first++;
    }
  }
}
