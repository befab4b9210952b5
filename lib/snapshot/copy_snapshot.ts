/**
 * Copies a snapshot, plain or compressed, to a plain one with holes, and changes pages on the
 * way.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { Arena } from "../../ffi/arena.ts";
import { isZero } from "../../ffi/libc.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import { replaceFile, throwIfAborted } from "../storage/file_replacement.ts";
import type { OutputFile } from "../storage/output_file.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { BlockPageRun, PageReader } from "./diff_snapshots.ts";
import type { Snapshot } from "./snapshot.ts";
import type { SnapshotBlock } from "./snapshot_index.ts";
import { cutRange, snapshotWindows, wholeSnapshot } from "./snapshot_windows.ts";

/** Pages to write into a copy. */
export interface PageChanges {
  /** Which pages, for example from `diffSnapshots()`. */
  readonly runs: AsyncIterable<BlockPageRun> | Iterable<BlockPageRun>;
  /** Their content. */
  readonly pages: PageReader;
}

/** How a file is copied. */
export interface CopySnapshotOptions {
  /** Pages that shall have another content in the copy; zero pages become absent ones. */
  readonly changes?: PageChanges | undefined;
  /** Cancels; nothing is left behind. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many of the file's bytes are done. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

const COPY_SNAPSHOT_OPTIONS = {
  changes: true,
  signal: true,
  onProgress: true,
} satisfies OptionNames<CopySnapshotOptions>;

/** What copying came to. */
export interface CopiedSnapshot {
  /** Pages written because of `changes`. */
  readonly changedPages: number;
  /** Pages in the copy. */
  readonly presentPages: number;
}

/**
 * Writes a copy of `file` to `path`; it appears when it is complete and on the device. Device state
 * and everything else but the changed pages stay as they are.
 *
 * @throws {RangeError} for changes outside the blocks.
 * @throws {SystemError | CancelledError} when writing fails or is cancelled.
 */
export async function copySnapshot(
  file: Snapshot,
  path: string,
  options: CopySnapshotOptions = {},
): Promise<CopiedSnapshot> {
  checkOptionNames(COPY_SNAPSHOT_OPTIONS, options);
  const { changes, signal } = options;
  const action = `Cannot write ${path}`;
  let result: CopiedSnapshot = { changedPages: 0, presentPages: 0 };
  await replaceFile(path, action, signal, async (output) => {
    const copier = new SnapshotCopier(file, output, action, options);
    await copier.copyAll();
    const changedPages = changes === undefined ? 0 : await copier.change(changes);
    result = { changedPages, presentPages: await copier.writeBitmaps() };
  });
  return result;
}

class SnapshotCopier {
  readonly #file: Snapshot;
  readonly #output: OutputFile;
  readonly #action: string;
  readonly #options: CopySnapshotOptions;
  readonly #buffer = new Arena(FILE_JOB_BYTES);
  readonly #present: Map<string, PageBitmap>;

  constructor(file: Snapshot, output: OutputFile, action: string, options: CopySnapshotOptions) {
    this.#file = file;
    this.#output = output;
    this.#action = action;
    this.#options = options;
    this.#present = new Map(file.blocks.map((block) => [block.idstr, copyOf(block)]));
  }

  async copyAll(): Promise<void> {
    const { index } = this.#file;
    const { signal, onProgress } = this.#options;
    const options = { action: this.#action, signal, onProgress };
    this.#output.truncate(index.fileBytes);
    for await (const window of snapshotWindows(this.#file, wholeSnapshot(index), options)) {
      if (window.isAbsent) continue;
      const content = window.read();
      // Of headers, bitmaps and padding, zeros stay holes.
      const runs = window.block === undefined ? window.dataRuns() : window.presentRuns();
      for (const { start, end } of runs) {
        await this.#output.write(content.subarray(start, end), window.fileOffset + start);
      }
    }
  }

  async change({ runs, pages }: PageChanges): Promise<number> {
    let changed = 0;
    for await (const { idstr, start, end } of runs) {
      throwIfAborted(this.#action, this.#options.signal);
      await this.#changeRun(this.#file.block(idstr), start, end, pages);
      changed += end - start;
    }
    return changed;
  }

  /** Writes the bitmaps as they are now; returns the number of bits. */
  async writeBitmaps(): Promise<number> {
    let pages = 0;
    for (const { idstr, bitmapOffset, pages: blockPages } of this.#file.blocks) {
      const present = this.#present.get(idstr)!;
      const bytes = new Uint8Array(present.buffer, 0, PageBitmap.bytesFor(blockPages));
      await this.#output.write(bytes, bitmapOffset);
      pages += present.count();
    }
    return pages;
  }

  async #changeRun(
    block: SnapshotBlock,
    start: number,
    end: number,
    pages: PageReader,
  ): Promise<void> {
    const { idstr, pageSize, pagesOffset, pages: blockPages } = block;
    if (!(start >= 0 && start < end && end <= blockPages)) {
      throw new RangeError(
        `Cannot change pages ${start} to ${end}: RAM block ${idstr} has ${blockPages} pages`,
      );
    }
    const present = this.#present.get(idstr)!;
    const range = { offset: start * pageSize, bytes: (end - start) * pageSize };
    for (const { offset, bytes } of cutRange(range, FILE_JOB_BYTES)) {
      const content = this.#buffer.u8.subarray(0, bytes);
      pages.readRange(idstr, offset, content);
      for (let at = 0; at < bytes; at += pageSize) {
        const page = (offset + at) / pageSize;
        if (isZero(this.#buffer.address + at, pageSize)) present.clear(page);
        else present.set(page);
      }
      await this.#output.write(content, pagesOffset + offset);
    }
  }
}

function copyOf({ pages, present }: SnapshotBlock): PageBitmap {
  const bytes = new SharedArrayBuffer(present.buffer.byteLength);
  new Uint8Array(bytes).set(new Uint8Array(present.buffer));
  return new PageBitmap(pages, bytes);
}
