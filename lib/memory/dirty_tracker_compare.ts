/**
 * Tracking by comparison with a copy of the block, by several threads. It costs as much memory again
 * and reads all of it at each fetch; in exchange it works everywhere, sees what other processes
 * write to shared memory, and reports no page that was written with what it held before. A short
 * hash instead of the copy would save the memory and could miss a change.
 *
 * @module
 */
import { BlockTable } from "./block_table.ts";
import { checkBitmap, type DirtyTracker } from "./dirty_tracker.ts";
import type { PageBitmap } from "./page_bitmap.ts";
import { PageCrew } from "./page_crew.ts";
import { PageOperation } from "./page_task.ts";
import { RamBlock } from "./ram_block.ts";

/** See the module comment. */
export class CompareTracker implements DirtyTracker {
  readonly method = "compare";
  readonly reason: string | undefined;
  readonly #pages: number;
  readonly #copy: RamBlock;
  readonly #found: PageBitmap;
  readonly #crew: PageCrew;

  private constructor(block: RamBlock, threads: number, reason: string | undefined) {
    this.reason = reason;
    this.#pages = block.pages;
    this.#copy = RamBlock.allocate(block.idstr, block.bytes, { pageSize: block.pageSize });
    const table = new BlockTable(2 * block.bytes);
    this.#found = table.add(block, this.#copy).twin!.dirty;
    this.#crew = new PageCrew(table, threads, [block, this.#copy]);
  }

  /** Copies the block as it is now; pages that change meanwhile differ at the first fetch. */
  static async create(block: RamBlock, threads: number, reason?: string): Promise<CompareTracker> {
    const tracker = new CompareTracker(block, Math.max(1, threads), reason);
    await tracker.#crew.run(PageOperation.COPY);
    return tracker;
  }

  /** The same on a thread that may block and works with the others. */
  static createBlocking(block: RamBlock, threads: number, reason?: string): CompareTracker {
    const tracker = new CompareTracker(block, threads - 1, reason);
    tracker.#crew.runBlocking(PageOperation.COPY);
    return tracker;
  }

  async fetch(dirty: PageBitmap): Promise<void> {
    checkBitmap(dirty, this.#pages);
    await this.#crew.run(PageOperation.COMPARE);
    this.#found.drainInto(dirty);
  }

  fetchBlocking(dirty: PageBitmap): void {
    checkBitmap(dirty, this.#pages);
    this.#crew.runBlocking(PageOperation.COMPARE);
    this.#found.drainInto(dirty);
  }

  [Symbol.dispose](): void {
    this.#crew[Symbol.dispose]();
  }
}
