/**
 * Finds what a secondary has written to its own memory since the last checkpoint, so that applying
 * the next one takes it back: after a checkpoint both sides hold the same, whoever wrote what.
 *
 * @module
 */
import type { BlockTable } from "../memory/block_table.ts";
import { WriteProtectTracker } from "../memory/dirty_tracker_protect.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { PageCrew } from "../memory/page_crew.ts";
import { PageOperation } from "../memory/page_task.ts";
import type { RamBlock } from "../memory/ram_block.ts";

/** See the module comment. Without write protection the caches serve as the copy to compare with. */
export class LocalWrites implements Disposable {
  readonly #table: BlockTable;
  readonly #crew: PageCrew;
  #trackers: WriteProtectTracker[] = [];
  readonly #compares: boolean;

  constructor(blocks: readonly RamBlock[], table: BlockTable, crew: PageCrew) {
    this.#table = table;
    this.#crew = crew;
    const made = blocks.map((block) => WriteProtectTracker.create(block));
    this.#trackers = made.filter((tracker) => typeof tracker !== "string");
    this.#compares = this.#trackers.length < blocks.length;
    if (this.#compares) this[Symbol.dispose]();
  }

  /** Marks the written pages as dirty; nobody may be writing any more. */
  fetch(): void {
    if (this.#compares) this.#crew.runBlocking(PageOperation.MARK);
    for (const [index, tracker] of this.#trackers.entries()) {
      tracker.fetchBlocking(this.#table.blocks[index].twin!.dirty);
    }
  }

  /** Forgets what applying the checkpoint itself has written. */
  forget(): void {
    for (const [index, tracker] of this.#trackers.entries()) {
      tracker.fetchBlocking(new PageBitmap(this.#table.blocks[index].pages));
    }
  }

  [Symbol.dispose](): void {
    for (const tracker of this.#trackers) tracker[Symbol.dispose]();
    this.#trackers = [];
  }
}
