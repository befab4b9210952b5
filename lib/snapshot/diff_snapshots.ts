/**
 * Which pages of two snapshots of a guest differ.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { isEqual } from "../../ffi/libc.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import { throwIfAborted } from "../storage/file_replacement.ts";
import type { PageRun } from "../memory/page_bitmap.ts";
import type { MappedRamFile } from "./mapped_ram_file.ts";
import type { MappedRamBlock } from "./mapped_ram_index.ts";

/** Memory that can be read by block and offset: a snapshot, or an image beside one. */
export interface PageReader {
  /** Fills `target` with the bytes of a block from `offset` on. */
  readRange(idstr: string, offset: number, target: Uint8Array): void;
}

/** A run of pages of a block. */
export interface BlockPageRun extends PageRun {
  readonly idstr: string;
}

/** How snapshots are compared. */
export interface DiffOptions {
  /** Compares only these blocks. Default all. */
  readonly blocks?: readonly string[] | undefined;
  /** Cancels the comparison with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many bytes are compared. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

/** Bytes that are compared before other work of the thread gets its turn. */
const TURN_BYTES = 64 * FILE_JOB_BYTES;

/**
 * Compares the blocks of `left` with the same ranges of `right` and gives runs of pages whose
 * content differs, ascending within each block.
 *
 * @param right Another snapshot with blocks of the same names and lengths, or any other memory.
 * @throws {RangeError} when a block of `left` is missing in `right` or shorter there.
 *
 * @example
 * ```ts
 * for await (const { idstr, start, end } of diffSnapshots(before, after)) {
 *   console.log(idstr, start, end);
 * }
 * ```
 */
export async function* diffSnapshots(
  left: MappedRamFile,
  right: PageReader | MappedRamFile,
  options: DiffOptions = {},
): AsyncGenerator<BlockPageRun> {
  const { blocks: names, signal, onProgress } = options;
  const blocks = names?.map((name) => left.block(name)) ?? left.blocks;
  const allBytes = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
  const comparer = new WindowComparer(left, right);
  let done = 0;
  for (const block of blocks) {
    const { idstr, bytes, pageSize } = block;
    let run: PageRun | undefined;
    for (let offset = 0; offset < bytes; offset += FILE_JOB_BYTES) {
      const length = Math.min(FILE_JOB_BYTES, bytes - offset);
      for (const found of comparer.compare(block, offset / pageSize, length / pageSize)) {
        if (run !== undefined && run.end === found.start) {
          run = { start: run.start, end: found.end };
          continue;
        }
        if (run !== undefined) yield { idstr, ...run };
        run = found;
      }
      done += length;
      if (done % TURN_BYTES === 0) {
        onProgress?.(done, allBytes);
        await new Promise<void>((resolve) => void setImmediate(resolve));
        throwIfAborted(`Cannot compare ${left.path}`, signal);
      }
    }
    if (run !== undefined) yield { idstr, ...run };
  }
  onProgress?.(done, allBytes);
}

class WindowComparer {
  readonly #left: MappedRamFile;
  readonly #right: PageReader | MappedRamFile;
  readonly #leftBytes = new Arena(FILE_JOB_BYTES);
  readonly #rightBytes = new Arena(FILE_JOB_BYTES);

  constructor(left: MappedRamFile, right: PageReader | MappedRamFile) {
    this.#left = left;
    this.#right = right;
  }

  /** Runs of differing pages in a window of at most 1 MiB. */
  *compare(block: MappedRamBlock, first: number, pages: number): Generator<PageRun> {
    const { idstr, pageSize, present } = block;
    const end = first + pages;
    if (present.nextSet(first, end) === end && this.#isAbsent(idstr, pageSize, first, end)) return;
    const bytes = pages * pageSize;
    this.#left.readRange(idstr, first * pageSize, this.#leftBytes.u8.subarray(0, bytes));
    this.#right.readRange(idstr, first * pageSize, this.#rightBytes.u8.subarray(0, bytes));
    let start = -1;
    for (let page = first; page <= end; page++) {
      const at = (page - first) * pageSize;
      const differs =
        page < end &&
        !isEqual(this.#leftBytes.address + at, this.#rightBytes.address + at, pageSize);
      if (differs && start < 0) start = page;
      if (!differs && start >= 0) {
        yield { start, end: page };
        start = -1;
      }
    }
  }

  /** Whether the other side says without reading that these pages are zero. */
  #isAbsent(idstr: string, pageSize: number, first: number, end: number): boolean {
    if (!("blocks" in this.#right)) return false;
    const other = this.#right.block(idstr);
    return other.pageSize === pageSize && other.present.nextSet(first, end) === end;
  }
}
