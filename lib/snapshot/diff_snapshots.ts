/**
 * Which pages of two snapshots of a guest differ.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { Arena } from "../../ffi/arena.ts";
import { isEqual } from "../../ffi/libc.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import type { PageRun } from "../memory/page_bitmap.ts";
import type { Snapshot } from "./snapshot.ts";
import { snapshotWindows, wholeBlock, type SnapshotWindow } from "./snapshot_windows.ts";

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

const DIFF_OPTIONS = {
  blocks: true,
  signal: true,
  onProgress: true,
} satisfies OptionNames<DiffOptions>;

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
  left: Snapshot,
  right: PageReader | Snapshot,
  options: DiffOptions = {},
): AsyncGenerator<BlockPageRun> {
  checkOptionNames(DIFF_OPTIONS, options);
  const { blocks: names, signal, onProgress } = options;
  const blocks = names?.map((name) => left.block(name)) ?? left.blocks;
  const action = `Cannot compare ${left.path}`;
  const windows = snapshotWindows(left, blocks.map(wholeBlock), { action, signal, onProgress });
  const comparer = new WindowComparer(right);
  let run: BlockPageRun | undefined;
  for await (const window of windows) {
    for (const found of comparer.compare(window)) {
      if (run?.idstr === found.idstr && run.end === found.start) {
        run = { ...run, end: found.end };
        continue;
      }
      if (run !== undefined) yield run;
      run = found;
    }
  }
  if (run !== undefined) yield run;
}

class WindowComparer {
  readonly #right: PageReader | Snapshot;
  readonly #content = new Arena(FILE_JOB_BYTES);

  constructor(right: PageReader | Snapshot) {
    this.#right = right;
  }

  /** Runs of differing pages in a window of a block. */
  *compare(window: SnapshotWindow): Generator<BlockPageRun> {
    const { idstr, pageSize } = window.block!;
    const { offset, bytes } = window;
    const first = offset / pageSize;
    const end = first + bytes / pageSize;
    if (window.isAbsent && this.#isAbsent(idstr, pageSize, first, end)) return;
    window.read();
    this.#right.readRange(idstr, offset, this.#content.u8.subarray(0, bytes));
    let start = -1;
    for (let page = first; page <= end; page++) {
      const at = (page - first) * pageSize;
      const differs =
        page < end && !isEqual(window.address + at, this.#content.address + at, pageSize);
      if (differs && start < 0) start = page;
      if (!differs && start >= 0) {
        yield { idstr, start, end: page };
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
