/**
 * Work on all pages of a block table that several threads share: copying to the twins, comparing
 * with them, applying what is dirty. Threads take chunks of pages until none is left, so a thread
 * that starts late or is slow costs no more than its chunk.
 *
 * @module
 */
import { copyMemory, isEqual } from "../../ffi/libc.ts";
import { PAGE_TASK_LIMIT_MS, WAIT_TICK_MS } from "../limits.ts";
import { TimeoutError } from "../errors.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { pageAddress, type BlockTable, type TableBlock, type TableTwin } from "./block_table.ts";

/** What is done with every page of every block that has a twin. */
export const PageOperation = {
  /** Block to twin, everything. */
  COPY: 1,
  /** Where block and twin differ: block to twin, and the page is marked dirty. */
  COMPARE: 2,
  /** Where block and twin differ the page is marked dirty, and nothing is copied. */
  MARK: 3,
  /** Dirty pages: block to twin, and the mark is cleared. */
  APPLY: 4,
} as const;

/** One of {@linkcode PageOperation}. */
export type PageOperationCode = (typeof PageOperation)[keyof typeof PageOperation];

const ROUND = 0; // odd while a task is open; owner writes
const OPERATION = 1; // PageOperation; owner writes before it opens a task
const NEXT_CHUNK = 2; // taken by whoever works
const CHUNKS_LEFT = 3; // counted down when a chunk is done; 0 wakes the owner
const ACTIVE = 4; // threads that may be inside the open task
const PAGES = 5; // pages found dirty or applied, modulo 2^32
const WORDS = 32;

/** Pages of a chunk: whole words of a bitmap, and far more work than taking the chunk. */
const CHUNK_PAGES = 1024;

/** See the module comment. Each thread makes its own object over the same buffer. */
export class PageTask {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #table: BlockTable;

  constructor(table: BlockTable, buffer = new SharedArrayBuffer(WORDS * 4)) {
    this.#table = table;
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** Owner: opens a task for all threads; the one before must be closed. */
  open(operation: PageOperationCode): void {
    const chunks = this.#table.blocks.reduce((sum, block) => sum + chunksOf(block), 0);
    this.#words[OPERATION] = operation;
    Atomics.store(this.#words, PAGES, 0);
    Atomics.store(this.#words, NEXT_CHUNK, 0);
    Atomics.store(this.#words, CHUNKS_LEFT, chunks);
    Atomics.add(this.#words, ROUND, 1); // pairs with the loads in `serve()`
    Atomics.notify(this.#words, ROUND);
  }

  /** Whether all chunks of the open task are done. */
  get done(): boolean {
    return Atomics.load(this.#words, CHUNKS_LEFT) === 0;
  }

  /** Owner: works on the open task until no chunk is left to take. */
  help(): void {
    this.#takeChunks();
  }

  /**
   * Owner: waits for the threads that still have a chunk, and closes the task.
   *
   * @returns Pages found dirty or applied.
   * @throws {TimeoutError} when a thread does not give its chunk back.
   */
  close(): number {
    const deadline = performance.now() + PAGE_TASK_LIMIT_MS;
    this.#await(CHUNKS_LEFT, deadline);
    Atomics.add(this.#words, ROUND, 1); // who has not entered yet, sees this and leaves
    this.#await(ACTIVE, deadline);
    return Atomics.load(this.#words, PAGES) >>> 0;
  }

  /** Thread: works on every task until the session stops; `onDone` is called by the last to finish. */
  serve(session: Stoppable, onDone: () => void): void {
    for (let served = 0; !session.stopping;) {
      const round = Atomics.load(this.#words, ROUND);
      if (round === served || round % 2 === 0) {
        Atomics.wait(this.#words, ROUND, round, WAIT_TICK_MS);
        continue;
      }
      Atomics.add(this.#words, ACTIVE, 1);
      // Entered before the owner closed the task, or not at all: it waits for whoever is active.
      if (Atomics.load(this.#words, ROUND) === round) {
        this.#table.refresh();
        if (this.#takeChunks()) onDone();
        served = round;
      }
      if (Atomics.sub(this.#words, ACTIVE, 1) === 1) Atomics.notify(this.#words, ACTIVE);
    }
  }

  /** Wakes all threads to look at the stop word. */
  wake(): void {
    Atomics.notify(this.#words, ROUND);
  }

  /** True when this thread did the last chunk. */
  #takeChunks(): boolean {
    const operation = this.#words[OPERATION];
    let last = false;
    for (;;) {
      const chunk = Atomics.add(this.#words, NEXT_CHUNK, 1);
      const place = this.#find(chunk);
      if (place === undefined) return last;
      const { block, first } = place;
      const pages = workOn(operation, block, first, Math.min(block.pages, first + CHUNK_PAGES));
      if (pages > 0) Atomics.add(this.#words, PAGES, pages);
      if (Atomics.sub(this.#words, CHUNKS_LEFT, 1) === 1) {
        last = true;
        Atomics.notify(this.#words, CHUNKS_LEFT);
      }
    }
  }

  #find(chunk: number): { block: TableBlock; first: number } | undefined {
    let left = chunk;
    for (const block of this.#table.blocks) {
      const chunks = chunksOf(block);
      if (left < chunks) return { block, first: left * CHUNK_PAGES };
      left -= chunks;
    }
    return undefined;
  }

  #await(word: number, deadline: number): void {
    for (;;) {
      const left = Atomics.load(this.#words, word);
      if (left === 0) return;
      if (performance.now() >= deadline) {
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT",
          `Cannot work on pages: a thread did not finish within ${PAGE_TASK_LIMIT_MS} ms`,
        );
      }
      Atomics.wait(this.#words, word, left, WAIT_TICK_MS);
    }
  }
}

function chunksOf(block: TableBlock): number {
  return block.twin === undefined ? 0 : Math.ceil(block.pages / CHUNK_PAGES);
}

/** Pages found dirty or applied. */
function workOn(operation: number, block: TableBlock, first: number, end: number): number {
  const twin = block.twin!;
  switch (operation) {
    case PageOperation.COPY:
      for (let page = first; page < end; page++) copyPage(block, twin, page);
      return 0;
    case PageOperation.APPLY:
      return apply(block, twin, first, end);
    default:
      return compare(block, twin, first, end, operation === PageOperation.COMPARE);
  }
}

function compare(
  block: TableBlock,
  twin: TableTwin,
  first: number,
  end: number,
  copy: boolean,
): number {
  let pages = 0;
  for (let page = first; page < end; page++) {
    if (isEqual(pageAddress(block, page), pageAddress(twin, page), block.pageSize)) continue;
    // Copied before it is sent: a change in between shows up in the next comparison.
    if (copy) copyPage(block, twin, page);
    twin.dirty.set(page);
    pages++;
  }
  return pages;
}

function apply(block: TableBlock, twin: TableTwin, first: number, end: number): number {
  let pages = 0;
  for (let page = twin.dirty.nextSet(first); page < end; page = twin.dirty.nextSet(page + 1)) {
    twin.dirty.clear(page);
    copyPage(block, twin, page);
    pages++;
  }
  return pages;
}

function copyPage(block: TableBlock, twin: TableTwin, page: number): void {
  copyMemory(pageAddress(twin, page), pageAddress(block, page), block.pageSize);
}
