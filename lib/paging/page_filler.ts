/**
 * Brings in pages that nobody has touched yet, piece by piece: those that are to be there first, then
 * all others in the order of the snapshot. Any number of threads share the work.
 *
 * @module
 */
import { FILE_JOB_BYTES, FILL_STRETCH_WINDOWS } from "../limits.ts";
import { RUN_WORDS } from "./first_pages.ts";
import type { PagePlacer } from "./page_placer.ts";
import type { PageRange } from "./page_range.ts";

/** See the module comment. Each thread makes its own object over the same word. */
export class PageFiller {
  readonly #cursor: Int32Array;
  readonly #ranges: readonly PageRange[];
  readonly #first: Uint32Array;
  readonly #placer: PagePlacer;
  readonly #placed: (range: PageRange, units: number) => void;
  /** Where the windows of each range end, counted over all of them. */
  readonly #ends: readonly number[];
  #window = 0;
  #end = 0;

  /**
   * @param cursor The next window that nobody has taken.
   * @param first Pieces of ranges to begin with, {@linkcode RUN_WORDS} words each.
   * @param placed Is told of units with content that have been placed.
   */
  constructor(
    cursor: SharedArrayBuffer,
    ranges: readonly PageRange[],
    first: Uint32Array,
    placer: PagePlacer,
    placed: (range: PageRange, units: number) => void,
  ) {
    this.#cursor = new Int32Array(cursor);
    this.#ranges = ranges;
    this.#first = first;
    this.#placer = placer;
    this.#placed = placed;
    let end = first.length / RUN_WORDS;
    this.#ends = ranges.map((range) => (end += Math.ceil(range.units / windowUnits(range))));
  }

  /**
   * Brings in the pages of one window; false when there is none left.
   *
   * @throws {MultifdError} when they cannot be read or placed; the rest of the window is left out.
   */
  step(): boolean {
    if (this.#window === this.#end) {
      this.#window = Atomics.add(this.#cursor, 0, FILL_STRETCH_WINDOWS);
      this.#end = this.#window + FILL_STRETCH_WINDOWS;
    }
    const window = this.#window++;
    const pieces = this.#first.length / RUN_WORDS;
    if (window < pieces) {
      const [place, start, stop] = this.#first.subarray(window * RUN_WORDS);
      if (!this.#fill(this.#ranges[place], start, stop)) this.#window = window;
      return true;
    }
    const index = this.#ends.findIndex((end) => window < end);
    if (index < 0) {
      this.#end = this.#window; // the next call looks again, and finds as little
      return false;
    }
    const range = this.#ranges[index];
    const length = windowUnits(range);
    const first = (window - (index === 0 ? pieces : this.#ends[index - 1])) * length;
    if (!this.#fill(range, first, Math.min(first + length, range.units))) this.#window = window;
    return true;
  }

  /** Whether nothing is left; otherwise the memory is being changed. */
  #fill(range: PageRange, first: number, end: number): boolean {
    for (let unit = range.nextOpen(first, end); unit < end;) {
      if (!range.claim(unit)) {
        unit = range.nextOpen(unit, end);
        continue;
      }
      const stop = range.claimAfter(unit, end);
      const placed = this.#placer.place(range, unit, stop);
      this.#placed(range, placed);
      if (placed < stop - unit) return false;
      unit = range.nextOpen(stop, end);
    }
    return true;
  }
}

function windowUnits({ unitBytes }: PageRange): number {
  return Math.max(1, FILE_JOB_BYTES / unitBytes);
}
