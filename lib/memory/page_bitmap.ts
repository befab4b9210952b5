/**
 * One bit per page in shared memory, usable from every thread at once. Bit i is bit (i mod 8) of byte
 * (i div 8), the order of QEMU's dirty bitmaps and of mapped-ram files on little-endian hosts.
 *
 * @module
 */
import { allocateShared } from "../../ffi/arena.ts";

const WORD_BITS = 32;

/** A run of equal bits: pages `start` up to, not including, `end`. */
export interface PageRun {
  readonly start: number;
  readonly end: number;
}

/**
 * A bitmap of pages. Single bits are changed atomically; counting and iterating see every bit that
 * was set before they came past it.
 *
 * @example
 * ```ts
 * const dirty = new PageBitmap(1024);
 * dirty.setRange(10, 20);
 * for (const { start, end } of dirty.runs()) console.log(start, end); // 10 20
 * ```
 */
export class PageBitmap {
  /** Number of pages, hence of bits. */
  readonly pages: number;
  /** Shared memory of the bits; pass it to another thread and make a `PageBitmap` over it there. */
  readonly buffer: SharedArrayBuffer;
  /** Where in `buffer` the bits start, a multiple of 4. */
  readonly byteOffset: number;
  readonly #words: Int32Array;
  /** Bits of the last word that belong to pages. */
  readonly #lastMask: number;

  /**
   * @throws {RangeError} when `buffer` is too short or `byteOffset` is not a multiple of 4.
   */
  constructor(pages: number, buffer?: SharedArrayBuffer, byteOffset = 0) {
    if (!Number.isSafeInteger(pages) || pages < 0) {
      throw new RangeError(`Cannot make a bitmap: ${pages} pages, must be a whole number`);
    }
    this.pages = pages;
    this.buffer = buffer ?? allocateShared(Math.max(8, PageBitmap.bytesFor(pages)), "a bitmap");
    this.byteOffset = byteOffset;
    this.#words = new Int32Array(this.buffer, byteOffset, Math.ceil(pages / WORD_BITS));
    this.#lastMask = (pages & 31) === 0 ? -1 : (1 << (pages & 31)) - 1;
  }

  /** Bytes a bitmap occupies: whole 64-bit words, as in mapped-ram files. */
  static bytesFor(pages: number): number {
    return Math.ceil(pages / 64) * 8;
  }

  /** Sets the bit of `page`; true when it was clear before. */
  set(page: number): boolean {
    const bit = 1 << (page & 31);
    return (Atomics.or(this.#words, this.#wordOf(page), bit) & bit) === 0;
  }

  /** Clears the bit of `page`; true when it was set before. */
  clear(page: number): boolean {
    const bit = 1 << (page & 31);
    return (Atomics.and(this.#words, this.#wordOf(page), ~bit) & bit) !== 0;
  }

  /** Whether the bit of `page` is set. */
  has(page: number): boolean {
    return (Atomics.load(this.#words, this.#wordOf(page)) & (1 << (page & 31))) !== 0;
  }

  /** Sets the bits of pages `start` up to, not including, `end`. */
  setRange(start: number, end: number): void {
    this.#change(start, end, (word, mask) => Atomics.or(this.#words, word, mask));
  }

  /** Clears the bits of pages `start` up to, not including, `end`. */
  clearRange(start: number, end: number): void {
    this.#change(start, end, (word, mask) => Atomics.and(this.#words, word, ~mask));
  }

  /** Number of set bits. */
  count(): number {
    let count = 0;
    const last = this.#words.length - 1;
    for (let index = 0; index <= last; index++) {
      // A foreign buffer may have bits set behind the last page.
      const word = this.#words[index] & (index === last ? this.#lastMask : -1);
      let bits = word - ((word >>> 1) & 0x5555_5555);
      bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
      count += Math.imul((bits + (bits >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
    }
    return count;
  }

  /** First set page at or after `from` and before `end`, or `end`. */
  nextSet(from: number, end = this.pages): number {
    return this.#next(from, end, 0);
  }

  /** First clear page at or after `from` and before `end`, or `end`. */
  nextClear(from: number, end = this.pages): number {
    return this.#next(from, end, -1);
  }

  /** Runs of set pages in ascending order. */
  *runs(): Generator<PageRun> {
    for (let start = this.nextSet(0); start < this.pages;) {
      const end = this.nextClear(start);
      yield { start, end };
      start = this.nextSet(end);
    }
  }

  /**
   * Moves all bits into `target` and clears them here, each word in one step: a bit set meanwhile is
   * either moved or still here. This is how a live dirty bitmap is fetched for a round.
   */
  drainInto(target: PageBitmap): void {
    if (target.pages !== this.pages) {
      throw new RangeError(
        `Cannot drain bitmap: target has ${target.pages} pages, must be ${this.pages}`,
      );
    }
    for (let word = 0; word < this.#words.length; word++) {
      if (this.#words[word] === 0) continue;
      Atomics.or(target.#words, word, Atomics.exchange(this.#words, word, 0));
    }
  }

  #next(from: number, end: number, invert: number): number {
    const stop = Math.min(end, this.pages);
    if (from >= stop) return stop;
    const lastWord = (stop - 1) >>> 5;
    let word = from >>> 5;
    let bits = (this.#words[word] ^ invert) & (-1 << (from & 31));
    while (bits === 0) {
      if (++word > lastWord) return stop;
      bits = this.#words[word] ^ invert;
    }
    return Math.min(stop, word * WORD_BITS + (31 - Math.clz32(bits & -bits)));
  }

  #change(start: number, end: number, apply: (word: number, mask: number) => void): void {
    if (!(start >= 0 && end <= this.pages)) {
      throw new RangeError(
        `Cannot change bits: pages ${start} to ${end}, must be within ${this.pages} pages`,
      );
    }
    for (let page = start; page < end;) {
      const bit = page & 31;
      const bits = Math.min(WORD_BITS - bit, end - page);
      apply(page >>> 5, (bits === WORD_BITS ? -1 : (1 << bits) - 1) << bit);
      page += bits;
    }
  }

  #wordOf(page: number): number {
    if (!(page >= 0 && page < this.pages)) {
      throw new RangeError(`Cannot access page ${page}: the bitmap has ${this.pages} pages`);
    }
    return page >>> 5;
  }
}
