/**
 * A range of memory whose pages come in one by one, and who has taken on which of them. Threads that
 * serve faults and threads that fill share it: whoever sets the bit of a page brings it in, and
 * nobody else does.
 *
 * @module
 */
import { kernelPageBytes } from "../../ffi/userfaultfd.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";

/** A range in the form that can be posted to another thread. */
export interface SharedPageRange {
  /** Of its block, for messages. */
  readonly idstr: string;
  /** Address of its first byte, in the process whose memory it is. */
  readonly address: number;
  readonly bytes: number;
  /** Bytes that are placed at once: a page of the block, or a larger one of the memory. */
  readonly unitBytes: number;
  /** Number of its block. */
  readonly block: number;
  /** Where it begins in the block, in bytes. */
  readonly blockOffset: number;
  /** Page size of the block. */
  readonly pageSize: number;
  /** Pages of the block. */
  readonly blockPages: number;
  /** Bits of the block's pages that have content; all others are zero. */
  readonly present: SharedArrayBuffer;
  /** Bits of units that somebody brings in, or has brought in. */
  readonly claimed: SharedArrayBuffer;
  /** Bits of units that are in place. */
  readonly placed: SharedArrayBuffer;
}

/** Units of one kind in a row, up to and not including `end`. */
interface UnitRun {
  readonly first: number;
  readonly end: number;
}

/** See the module comment. Each thread makes its own object over the same memory. */
export class PageRange {
  readonly idstr: string;
  readonly address: number;
  readonly bytes: number;
  readonly unitBytes: number;
  readonly units: number;
  readonly block: number;
  readonly placed: PageBitmap;
  readonly #shared: SharedPageRange;
  readonly #present: PageBitmap;
  readonly #claimed: PageBitmap;
  readonly #firstPage: number;
  readonly #unitPages: number;
  /** Pages of the kernel that were given back before their unit was in place; none at first. */
  #removed: PageBitmap | undefined;

  constructor(shared: SharedPageRange) {
    const { idstr, address, bytes, unitBytes, pageSize, block } = shared;
    this.idstr = idstr;
    this.address = address;
    this.bytes = bytes;
    this.unitBytes = unitBytes;
    this.units = bytes / unitBytes;
    this.block = block;
    this.#shared = shared;
    this.#present = new PageBitmap(shared.blockPages, shared.present);
    this.#claimed = new PageBitmap(this.units, shared.claimed);
    this.placed = new PageBitmap(this.units, shared.placed);
    this.#firstPage = shared.blockOffset / pageSize;
    this.#unitPages = unitBytes / pageSize;
  }

  /** Whether a unit has content. */
  hasContent(unit: number): boolean {
    const first = this.#firstPage + unit * this.#unitPages;
    if (this.#unitPages === 1) return this.#present.has(first);
    const end = first + this.#unitPages;
    return this.#present.nextSet(first, end) < end;
  }

  /** The next unit from `from` on that has content and that nobody has taken on; `end` if none. */
  nextOpen(from: number, end: number): number {
    for (let unit = from; unit < end;) {
      const page = this.#present.nextSet(this.#firstPage + unit * this.#unitPages);
      unit = Math.floor((page - this.#firstPage) / this.#unitPages);
      if (unit >= end) return end;
      const open = this.#claimed.nextClear(unit, end);
      if (open === unit) return unit;
      unit = open;
    }
    return end;
  }

  /** Takes on a unit; false when somebody has done so before. */
  claim(unit: number): boolean {
    return this.#claimed.set(unit);
  }

  /** Takes on the units in front of `end` that follow `from`, as long as they are of the same kind. */
  claimAfter(from: number, end: number): number {
    const kind = this.hasContent(from);
    let unit = from + 1;
    while (unit < end && this.hasContent(unit) === kind && this.#claimed.set(unit)) unit++;
    return unit;
  }

  /** Takes them back: somebody else may bring them in. */
  release(first: number, end: number): void {
    this.#claimed.clearRange(first, end);
  }

  /** Takes on units whatever is with them. */
  claimAll(first: number, end: number): void {
    this.#claimed.setRange(first, end);
  }

  /**
   * Has bytes of one unit, whole pages of the kernel, be zero when it is brought in. Known to this
   * object only.
   *
   * @returns Whether that is all of the unit by now.
   */
  removePart(from: number, to: number): boolean {
    const pageBytes = kernelPageBytes();
    const removed = (this.#removed ??= new PageBitmap(Math.ceil(this.bytes / pageBytes)));
    removed.setRange(from / pageBytes, to / pageBytes);
    const start = from - (from % this.unitBytes);
    const end = (start + this.unitBytes) / pageBytes;
    return removed.nextClear(start / pageBytes, end) === end;
  }

  /** Calls `visit` with each run of bytes of the units that was given back, by its place in them. */
  visitRemoved({ first, end }: UnitRun, visit: (offset: number, bytes: number) => void): void {
    if (this.#removed === undefined) return;
    const pageBytes = kernelPageBytes();
    const start = (first * this.unitBytes) / pageBytes;
    const stop = (end * this.unitBytes) / pageBytes;
    for (let page = this.#removed.nextSet(start, stop); page < stop;) {
      const clear = this.#removed.nextClear(page, stop);
      visit((page - start) * pageBytes, (clear - page) * pageBytes);
      page = this.#removed.nextSet(clear, stop);
    }
  }

  /** Calls `visit` with each run of bytes of the units that has content, by their place in the block. */
  visitContent({ first, end }: UnitRun, visit: (blockOffset: number, bytes: number) => void): void {
    const { pageSize } = this.#shared;
    const endPage = this.#firstPage + end * this.#unitPages;
    let page = this.#present.nextSet(this.#firstPage + first * this.#unitPages, endPage);
    while (page < endPage) {
      const stop = this.#present.nextClear(page, endPage);
      visit(page * pageSize, (stop - page) * pageSize);
      page = this.#present.nextSet(stop, endPage);
    }
  }

  /** Where a unit lies in the block, in bytes. */
  blockOffsetOf(unit: number): number {
    return this.#shared.blockOffset + unit * this.unitBytes;
  }
}

/** A range of which nothing is there, with new bitmaps. */
export function newPageRange(range: Omit<SharedPageRange, "claimed" | "placed">): SharedPageRange {
  const units = range.bytes / range.unitBytes;
  return {
    ...range,
    claimed: new PageBitmap(units).buffer,
    placed: new PageBitmap(units).buffer,
  };
}
