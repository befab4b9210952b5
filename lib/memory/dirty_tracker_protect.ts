/**
 * Tracking by the kernel: pages are write-protected, the first write to one lifts the protection,
 * and a fetch asks which were lifted and protects them again. It costs no memory, a fault for each
 * page that is written, and a fetch that does not look at memory at all.
 *
 * Only writes through this process's own mapping count, hence blocks of mapped shared memory, which
 * other processes may write to, are not tracked this way.
 *
 * @module
 */
import { errnoName } from "../../ffi/libc.ts";
import { kernelPageBytes } from "../../ffi/userfaultfd.ts";
import { WriteTracker } from "../../ffi/write_tracker.ts";
import { SystemError } from "../errors.ts";
import { checkBitmap, type DirtyTracker } from "./dirty_tracker.ts";
import { PageBitmap } from "./page_bitmap.ts";
import type { RamBlock } from "./ram_block.ts";

/** See the module comment. */
export class WriteProtectTracker implements DirtyTracker {
  readonly method = "write-protect";
  readonly reason = undefined;
  readonly #block: RamBlock; // held, since the kernel tracks addresses
  readonly #writes: WriteTracker;

  private constructor(block: RamBlock, writes: WriteTracker) {
    this.#block = block.hold();
    this.#writes = writes;
  }

  /** Starts to track `block`; a tracker, or why that is not possible here. */
  static create(block: RamBlock): WriteProtectTracker | string {
    const unit = kernelPageBytes();
    if (block.segments.some(({ buffer }) => buffer === undefined)) {
      return "the block is mapped memory, which other processes may write to";
    }
    if (block.segments.some(({ address, bytes }) => address % unit > 0 || bytes % unit > 0)) {
      return `the block does not consist of whole kernel pages of ${unit} bytes`;
    }
    const writes = WriteTracker.open();
    if (typeof writes === "number") {
      return `this kernel or user has no asynchronous write protection: ${errnoName(-writes)}`;
    }
    for (const { address, bytes } of block.segments) {
      const status = writes.add(address, bytes);
      if (status >= 0) continue;
      writes[Symbol.dispose]();
      return `the kernel does not track this memory: ${errnoName(-status)}`;
    }
    const tracker = new WriteProtectTracker(block, writes);
    try {
      // Everything counts as written until it is protected for the first time.
      tracker.fetchBlocking(new PageBitmap(block.pages));
      return tracker;
    } catch (error) {
      tracker[Symbol.dispose]();
      return (error as Error).message;
    }
  }

  fetch(dirty: PageBitmap): Promise<void> {
    // Takes milliseconds for a gigabyte; a thread would have nothing to wait for.
    return Promise.try(() => this.fetchBlocking(dirty));
  }

  fetchBlocking(dirty: PageBitmap): void {
    const { segments, pageSize, pages } = this.#block;
    checkBitmap(dirty, pages);
    let segmentAt = 0;
    for (const { address, bytes } of segments) {
      const offset = segmentAt - address;
      const status = this.#writes.scan(address, bytes, (start, end) => {
        const first = Math.floor((start + offset) / pageSize);
        dirty.setRange(first, Math.ceil((end + offset) / pageSize));
      });
      if (status < 0) {
        const errno = errnoName(-status);
        throw new SystemError(`Cannot fetch dirty pages: ${errno}`, { errno });
      }
      segmentAt += bytes;
    }
  }

  [Symbol.dispose](): void {
    this.#writes[Symbol.dispose]();
    this.#block[Symbol.dispose]();
  }
}
