/**
 * A channel of a snapshot: takes windows until there are none and writes or reads their
 * pages at their places (mapped-ram description, sections 2 and 3). Runs on a worker.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { clearMemory, isZero } from "../../ffi/libc.ts";
import { readBlockFile } from "../engine/page_stage.ts";
import type { ChannelCounters } from "../engine/statistics.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import type { FileBlock, FileRound } from "./file_round.ts";

/** The file as a channel sees it, with a descriptor of its own. */
export interface PageFile extends Disposable {
  /** Reads exactly `bytes` bytes from file offset `offset` on to `address`. */
  read(address: number, bytes: number, offset: number): void;
  /** Writes all `bytes` bytes at `address` to file offset `offset`. */
  write(address: number, bytes: number, offset: number): void;
}

/** What a file channel is made of. */
interface FileChannelParts {
  readonly mode: "read" | "write";
  /** Whether a writer leaves out zero pages. */
  readonly detectZeroPages: boolean;
  readonly file: PageFile;
  readonly blocks: readonly FileBlock[];
  readonly round: FileRound;
  readonly control: Stoppable;
  readonly counters: ChannelCounters;
}

/** See the module comment. */
export class FileChannel {
  readonly #parts: FileChannelParts;
  /** Made with the first block that is read from a file. */
  #stage: Arena | undefined;

  constructor(parts: FileChannelParts) {
    this.#parts = parts;
  }

  /** Works on one pass until all windows are taken or the session stops. */
  run(): void {
    const { mode, blocks, round, control } = this.#parts;
    let index = 0;
    let firstWindow = 0;
    while (!control.stopping) {
      const window = round.takeWindow();
      if (window < firstWindow) {
        // The next pass has begun before this channel saw the end of its own: it goes on with it.
        index = 0;
        firstWindow = 0;
      }
      while (index < blocks.length && window >= firstWindow + blocks[index].windows) {
        firstWindow += blocks[index].windows;
        index++;
      }
      if (index === blocks.length) return;
      const block = blocks[index];
      const first = (window - firstWindow) * block.windowPages;
      const end = Math.min(first + block.windowPages, block.pages);
      if (mode === "write") this.#writeWindow(block, first, end);
      else this.#readWindow(block, first, end);
      round.finishWindow();
    }
  }

  /** Writes the pending pages that are not zero, and corrects the bits of all pending pages. */
  #writeWindow(block: FileBlock, first: number, end: number): void {
    const { pending, present, pageSize } = block;
    const { detectZeroPages } = this.#parts;
    // A window lies in one piece of memory, so the address of page 0 is as good as any.
    const pageZero = this.#addressOf(block, first, end) - first * pageSize;
    let runStart = first;
    let runEnd = first;
    let normal = 0;
    let zero = 0;
    for (
      let page = pending.nextSet(first, end);
      page < end;
      page = pending.nextSet(page + 1, end)
    ) {
      if (detectZeroPages && isZero(pageZero + page * pageSize, pageSize)) {
        // What an earlier round left at its place is stale and no longer counts.
        present.clear(page);
        zero++;
        continue;
      }
      present.set(page);
      normal++;
      if (page !== runEnd) {
        this.#write(block, pageZero, runStart, runEnd);
        runStart = page;
      }
      runEnd = page + 1;
    }
    this.#write(block, pageZero, runStart, runEnd);
    if (normal + zero > 0) this.#parts.counters.addPacket(normal * pageSize, normal, zero);
  }

  /** Address of the pages of a window; of one that lies in a file, they are read first. */
  #addressOf(block: FileBlock, first: number, end: number): number {
    const { source, pending, pageSize } = block;
    if (source === undefined) {
      block.touch(first, end);
      return block.addressOf(first);
    }
    const { address } = (this.#stage ??= new Arena(FILE_JOB_BYTES));
    for (let page = pending.nextSet(first, end); page < end;) {
      const stop = pending.nextClear(page, end);
      const at = address + (page - first) * pageSize;
      readBlockFile(block.idstr, source, at, page * pageSize, (stop - page) * pageSize);
      page = pending.nextSet(stop, end);
    }
    return address;
  }

  #write(block: FileBlock, pageZero: number, first: number, end: number): void {
    if (first === end) return;
    const { file, counters } = this.#parts;
    const { pageSize, pagesOffset } = block;
    const start = performance.now();
    file.write(
      pageZero + first * pageSize,
      (end - first) * pageSize,
      pagesOffset + first * pageSize,
    );
    counters.addTransfer(performance.now() - start);
  }

  /** Reads the present pages among the pending ones; the others become zero. */
  #readWindow(block: FileBlock, first: number, end: number): void {
    const { file, counters } = this.#parts;
    const { pending, present, pageSize, pagesOffset } = block;
    let normal = 0;
    let zero = 0;
    for (let page = pending.nextSet(first, end); page < end;) {
      const pendingEnd = pending.nextClear(page, end);
      const runStart = present.nextSet(page, pendingEnd);
      const runEnd = present.nextClear(runStart, pendingEnd);
      if (!block.zeroed) this.#clear(block, page, runStart);
      if (runEnd > runStart) {
        const start = performance.now();
        const bytes = (runEnd - runStart) * pageSize;
        block.touch(runStart, runEnd);
        file.read(block.addressOf(runStart), bytes, pagesOffset + runStart * pageSize);
        counters.addTransfer(performance.now() - start);
      }
      normal += runEnd - runStart;
      zero += runStart - page;
      page = runEnd < pendingEnd ? runEnd : pending.nextSet(pendingEnd, end);
    }
    if (normal + zero > 0) this.#parts.counters.addPacket(normal * pageSize, normal, zero);
  }

  /** Clears what is not zero: reading costs less than touching all pages of lazy memory. */
  #clear(block: FileBlock, first: number, end: number): void {
    for (let page = first; page < end; page++) {
      const address = block.addressOf(page);
      if (!isZero(address, block.pageSize)) clearMemory(address, block.pageSize);
    }
  }
}
