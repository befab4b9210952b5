/**
 * Which pages go next when memory follows the guest: those behind the last one that was asked for, then
 * those of a recorded order, then all others. A page goes once only: the destination cannot place a
 * second copy of it.
 *
 * Pages here are those of the destination's memory, which are placed whole, of one or several pages of
 * the target.
 *
 * @module
 */
import { MultifdError } from "../errors.ts";
import { NEAR_PAGES } from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { PageBlock } from "../snapshot/page_source.ts";
import { ORDER_RUN_WORDS } from "./page_order.ts";

/** A block as it is sent. */
interface PlannedBlock {
  readonly pages: number;
  /** Pages that must be sent. */
  readonly wanted: PageBitmap;
  readonly sent: PageBitmap;
}

/** See the module comment. Used by one thread. */
export class PagePlan {
  /** The run that `next()` has found. */
  block = 0;
  start = 0;
  end = 0;
  /** Pages that the file holds and that were not sent. */
  left = 0;
  readonly #blocks: readonly PlannedBlock[];
  readonly #order: Uint32Array;
  #orderAt = 0;
  /** Where in that run the next pages are looked for: from its beginning, large runs would take long. */
  #orderPage = 0;
  /** Where the pages behind the last fault begin, and how many of them still go first. */
  #nearBlock = 0;
  #near = 0;
  #nearLeft = 0;
  #sweepBlock = 0;
  #sweep = 0;

  /**
   * @param units Pages of the target in each page of the destination's memory, by block.
   * @param order Runs of pages of the target, see {@linkcode PageOrder}.
   */
  constructor(blocks: readonly PageBlock[], units: readonly number[], order: Uint32Array) {
    this.#blocks = blocks.map((block, index) => {
      const pages = block.pages / units[index];
      const wanted = units[index] === 1 ? block.present : gather(block.present, units[index]);
      return { pages, wanted, sent: new PageBitmap(pages) };
    });
    this.#order = order.slice();
    for (let at = 0; at < order.length; at += ORDER_RUN_WORDS) {
      const unit = units[order[at]];
      this.#order[at + 1] = Math.floor(order[at + 1] / unit);
      this.#order[at + 2] = Math.ceil(order[at + 2] / unit);
    }
    this.left = this.#blocks.reduce((sum, { wanted }) => sum + wanted.count(), 0);
  }

  /** Takes a page to be sent now; false when it was sent before. */
  claim(block: number, page: number): boolean {
    const { sent, wanted } = this.#blocks[block];
    if (!sent.set(page)) return false;
    if (wanted.has(page)) this.left--;
    return true;
  }

  /** Pages behind this one go first now. */
  follow(block: number, page: number): void {
    this.#nearBlock = block;
    this.#near = page + 1;
    this.#nearLeft = NEAR_PAGES;
  }

  /**
   * Finds the next run and takes it: `block`, `start` and `end`.
   *
   * @returns False when all is sent.
   */
  next(pagesMax: number): boolean {
    return this.#nextNear(pagesMax) || this.nextOrdered(pagesMax) || this.#nextSwept(pagesMax);
  }

  /** Finds and takes the next run of the recorded order. @returns False when all of that is sent. */
  nextOrdered(pagesMax: number): boolean {
    const order = this.#order;
    for (; this.#orderAt < order.length; this.#orderAt += ORDER_RUN_WORDS) {
      const at = this.#orderAt;
      const from = Math.max(order[at + 1], this.#orderPage);
      if (this.#take(order[at], from, order[at + 2], pagesMax)) {
        this.#orderPage = this.end;
        return true;
      }
      this.#orderPage = 0;
    }
    return false;
  }

  /** Whether pages of the recorded order may be left. */
  get hasOrdered(): boolean {
    return this.#orderAt < this.#order.length;
  }

  /** Gives back what was taken last from page `from` on; `end` is there then. */
  giveBack(from: number): void {
    this.#blocks[this.block].sent.clearRange(from, this.end);
    this.left += this.end - from;
    if (this.#orderPage === this.end) this.#orderPage = from;
    this.end = from;
    // The sweep may have been there; near pages and those of an order come with it at last.
    if (this.block < this.#sweepBlock || (this.block === this.#sweepBlock && from < this.#sweep)) {
      this.#sweepBlock = this.block;
      this.#sweep = from;
    }
  }

  /**
   * Takes over which pages of a block the destination has, after a cut: whatever else was sent is lost.
   *
   * @param received A bit for each page of the target, of which each page here has `unit`.
   */
  resume(block: number, received: PageBitmap, unit: number): void {
    const { sent, pages } = this.#blocks[block];
    sent.clearRange(0, pages);
    for (let page = 0; page < pages; page++) if (received.has(page * unit)) sent.set(page);
    this.#sweepBlock = this.#sweep = this.#orderAt = this.#orderPage = this.#nearLeft = 0;
    this.left = this.#countLeft();
  }

  /**
   * Counts what was sent against what the file holds: the destination does not ask whether all has come,
   * and what has not is zero for ever.
   *
   * @throws {MultifdError} when a page is left.
   */
  requireNone(): void {
    const left = this.#countLeft();
    if (left === 0) return;
    throw new MultifdError("ERR_MULTIFD_INTERNAL", `Cannot end: ${left} pages were not sent`);
  }

  #countLeft(): number {
    return this.#blocks.reduce((sum, block) => sum + missing(block), 0);
  }

  #nextNear(pagesMax: number): boolean {
    if (this.#nearLeft <= 0) return false;
    const end = this.#near + this.#nearLeft;
    if (!this.#take(this.#nearBlock, this.#near, end, pagesMax)) {
      this.#nearLeft = 0;
      return false;
    }
    this.#nearLeft = end - this.end;
    this.#near = this.end;
    return true;
  }

  #nextSwept(pagesMax: number): boolean {
    for (; this.#sweepBlock < this.#blocks.length; this.#sweepBlock++) {
      const { pages } = this.#blocks[this.#sweepBlock];
      if (this.#take(this.#sweepBlock, this.#sweep, pages, pagesMax)) {
        this.#sweep = this.end;
        return true;
      }
      this.#sweep = 0;
    }
    return false;
  }

  /** Takes the first run of pages to be sent between `from` and `end`. */
  #take(block: number, from: number, end: number, pagesMax: number): boolean {
    const { wanted, sent } = this.#blocks[block];
    let page = wanted.nextSet(from, end);
    while (page < end && page < wanted.pages && sent.has(page)) {
      page = wanted.nextSet(sent.nextClear(page, end), end);
    }
    if (page >= end || page >= wanted.pages) return false;
    const most = Math.min(end, page + pagesMax);
    this.block = block;
    this.start = page;
    this.end = sent.nextSet(page, wanted.nextClear(page, most));
    sent.setRange(page, this.end);
    this.left -= this.end - page;
    return true;
  }
}

function missing({ wanted, sent }: PlannedBlock): number {
  let count = 0;
  for (const { start, end } of wanted.runs()) {
    for (let page = start; page < end; page++) if (!sent.has(page)) count++;
  }
  return count;
}

/** A bit for each `unit` bits of which one is set. */
function gather(bits: PageBitmap, unit: number): PageBitmap {
  const gathered = new PageBitmap(bits.pages / unit);
  for (const { start, end } of bits.runs()) {
    gathered.setRange(Math.floor(start / unit), Math.ceil(end / unit));
  }
  return gathered;
}
