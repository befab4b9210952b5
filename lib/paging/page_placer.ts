/**
 * Puts pages in place: reads them into memory of its own, from where the kernel copies them, so that
 * nobody ever sees half a page. Used by one thread.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { clearMemory, Errno, errnoName, yieldProcessor } from "../../ffi/libc.ts";
import { kernelPageBytes } from "../../ffi/userfaultfd.ts";
import { SystemError } from "../errors.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import type { PageRange } from "./page_range.ts";
import type { PageReader } from "./page_reader.ts";

/** Largest unit for which the kernel has a page of zeros ready. */
const ZERO_UNIT_BYTES_MAX = 65_536;

/** The kernel refuses to put pages in place; to try again is of no use. */
export class PlacementError extends SystemError {}

/** What pages are put into. All return bytes done, or `-errno`. */
export interface PageMemory {
  copy(to: number, from: number, bytes: number): number;
  zero(to: number, bytes: number): number;
  /** Has those who wait in a range look again. */
  wake(address: number, bytes: number): number;
}

/** See the module comment. */
export class PagePlacer {
  readonly #memory: PageMemory;
  readonly #reader: PageReader;
  readonly #stage: Arena;

  /** @param unitBytesMax Longest unit of any range. */
  constructor(memory: PageMemory, reader: PageReader, unitBytesMax: number) {
    this.#memory = memory;
    this.#reader = reader;
    this.#stage = new Arena(Math.max(FILE_JOB_BYTES, unitBytesMax));
  }

  /**
   * Places units that the caller has taken on, all with content or all without, and marks them as
   * placed. Units that are not placed are taken back, and who waits for them looks again.
   *
   * @returns The units placed; fewer when the memory is being changed and events are to be read first.
   * @throws {MultifdError} when they cannot be read or placed.
   */
  place(range: PageRange, first: number, end: number): number {
    const { unitBytes } = range;
    let done = first;
    try {
      const bytes = (end - first) * unitBytes;
      const isZero = !range.hasContent(first);
      const zeroes = isZero && unitBytes <= ZERO_UNIT_BYTES_MAX;
      if (!zeroes) this.#read(range, first, end, isZero);
      const to = range.address + first * unitBytes;
      for (let at = 0; at < bytes;) {
        const got = zeroes
          ? this.#memory.zero(to + at, bytes - at)
          : this.#memory.copy(to + at, this.#stage.address + at, bytes - at);
        if (got > 0) at += got;
        // Somebody else has put it there, or has made it part of something larger; what is behind it
        // in the unit may still be absent.
        else if (got === -Errno.EEXIST) {
          this.#memory.wake(to + at - (at % unitBytes), unitBytes);
          at += Math.min(kernelPageBytes(), unitBytes);
        } else if (got === -Errno.EINVAL && at % unitBytes !== 0) {
          at += unitBytes - (at % unitBytes); // a huge page, which is there as a whole
        } else if (got === -Errno.EAGAIN) {
          yieldProcessor();
          break;
        } else {
          const errno = errnoName(-got);
          throw new PlacementError(`Cannot place pages of RAM block ${range.idstr}: ${errno}`, {
            errno,
          });
        }
        const now = first + Math.floor(at / unitBytes);
        range.placed.setRange(done, now);
        done = now;
      }
      return done - first;
    } finally {
      if (done < end) {
        range.release(done, end);
        this.#memory.wake(range.address + done * unitBytes, (end - done) * unitBytes);
      }
    }
  }

  /** Places a unit of zeros wherever it belongs; bytes, or `-errno`. */
  clear(to: number, unitBytes: number): number {
    if (unitBytes <= ZERO_UNIT_BYTES_MAX) return this.#memory.zero(to, unitBytes);
    clearMemory(this.#stage.address, unitBytes);
    return this.#memory.copy(to, this.#stage.address, unitBytes);
  }

  #read(range: PageRange, first: number, end: number, isZero: boolean): void {
    const { address } = this.#stage;
    const start = range.blockOffsetOf(first);
    const bytes = (end - first) * range.unitBytes;
    let filled = 0;
    const clearUpTo = (at: number): void => {
      if (at > filled) clearMemory(address + filled, at - filled);
    };
    if (!isZero) {
      range.visitContent({ first, end }, (offset, length) => {
        clearUpTo(offset - start);
        this.#reader.read(address + (offset - start), length, range.block, offset);
        filled = offset - start + length;
      });
    }
    clearUpTo(bytes);
    range.visitRemoved({ first, end }, (at, length) => clearMemory(address + at, length));
  }
}
