/**
 * The way through a snapshot, piece by piece, for whatever looks at all of it: copies, comparisons,
 * checks. Between pieces other work of the thread gets its turn.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { isZero } from "../../ffi/libc.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import { throwIfAborted } from "../storage/file_replacement.ts";
import type { Snapshot } from "./snapshot.ts";
import type { SnapshotBlock, SnapshotIndex } from "./snapshot_index.ts";

/** A range of bytes, of a block if there is one and else of the file. */
interface SnapshotRange {
  readonly block: SnapshotBlock | undefined;
  readonly offset: number;
  readonly bytes: number;
}

/** Bytes of a window. */
interface WindowRun {
  readonly start: number;
  readonly end: number;
}

/** How windows are gone through. */
interface WindowOptions {
  /** What the caller does, for messages. */
  readonly action: string;
  /** Length of every window but the last of a range. Default 1 MiB. */
  readonly windowBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Is told how many bytes of the ranges are done. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

/** How long a thread goes on before its other work gets a turn. */
const TURN_MS = 10;
const HOLE_BYTES = 4096; // smallest hole a file system makes

/** A piece of a snapshot; valid until the next one. */
export class SnapshotWindow implements SnapshotRange {
  readonly block: SnapshotBlock | undefined;
  readonly offset: number;
  readonly bytes: number;
  readonly #file: Snapshot;
  readonly #buffer: Arena;

  constructor(file: Snapshot, buffer: Arena, { block, offset, bytes }: SnapshotRange) {
    this.#file = file;
    this.#buffer = buffer;
    this.block = block;
    this.offset = offset;
    this.bytes = bytes;
  }

  /** Offset in the file. */
  get fileOffset(): number {
    return this.offset + (this.block?.pagesOffset ?? 0);
  }

  /** Whether the file says, without being read, that all of it is zero. */
  get isAbsent(): boolean {
    if (this.block === undefined) return false;
    const { present, pageSize } = this.block;
    const endPage = Math.ceil((this.offset + this.bytes) / pageSize);
    return present.nextSet(Math.floor(this.offset / pageSize), endPage) === endPage;
  }

  /** Where `read()` puts the bytes. */
  get address(): number {
    return this.#buffer.address;
  }

  /** Reads the bytes; absent pages are zero. */
  read(): Uint8Array {
    const content = this.#buffer.u8.subarray(0, this.bytes);
    if (this.block === undefined) this.#file.readFile(this.offset, content);
    else this.#file.readRange(this.block.idstr, this.offset, content);
    return content;
  }

  /** What of a window of whole pages is present. */
  *presentRuns(): Generator<WindowRun> {
    if (this.block === undefined) return;
    const { present, pageSize } = this.block;
    const first = this.offset / pageSize;
    const end = first + this.bytes / pageSize;
    for (let page = present.nextSet(first, end); page < end;) {
      const stop = present.nextClear(page, end);
      yield { start: (page - first) * pageSize, end: (stop - first) * pageSize };
      page = present.nextSet(stop, end);
    }
  }

  /** What of the bytes that were read is worth writing: all but pieces of 4 KiB that are zero. */
  *dataRuns(): Generator<WindowRun> {
    let start = -1;
    for (let at = 0; at < this.bytes; at += HOLE_BYTES) {
      const isHole = isZero(this.address + at, Math.min(HOLE_BYTES, this.bytes - at));
      if (isHole && start >= 0) yield { start, end: at };
      if (isHole) start = -1;
      else if (start < 0) start = at;
    }
    if (start >= 0) yield { start, end: this.bytes };
  }
}

/**
 * Goes through ranges of a snapshot.
 *
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function* snapshotWindows(
  file: Snapshot,
  ranges: Iterable<SnapshotRange>,
  options: WindowOptions,
): AsyncGenerator<SnapshotWindow> {
  const { action, windowBytes = FILE_JOB_BYTES, signal, onProgress } = options;
  const all = [...ranges];
  const allBytes = all.reduce((sum, { bytes }) => sum + bytes, 0);
  const buffer = new Arena(windowBytes);
  let done = 0;
  let turn = performance.now();
  for (const range of all) {
    for (const piece of cutRange(range, windowBytes)) {
      if (performance.now() - turn > TURN_MS) {
        await new Promise<void>((resolve) => void setImmediate(resolve));
        turn = performance.now();
      }
      throwIfAborted(action, signal);
      yield new SnapshotWindow(file, buffer, { block: range.block, ...piece });
      done += piece.bytes;
      onProgress?.(done, allBytes);
    }
  }
}

/** All of a file in its order: what is stream and bitmaps, and what is pages. */
export function wholeSnapshot({ blocks, fileBytes }: SnapshotIndex): SnapshotRange[] {
  const ranges: SnapshotRange[] = [];
  let offset = 0;
  for (const block of blocks) {
    const { pagesOffset, bytes } = block;
    ranges.push({ block: undefined, offset, bytes: pagesOffset - offset }, wholeBlock(block));
    offset = pagesOffset + bytes;
  }
  ranges.push({ block: undefined, offset, bytes: fileBytes - offset });
  return ranges;
}

/** All pages of a block. */
export function wholeBlock(block: SnapshotBlock): SnapshotRange {
  return { block, offset: 0, bytes: block.bytes };
}

/** Cuts a range into pieces of at most `bytesMax`. */
export function* cutRange(
  range: { readonly offset: number; readonly bytes: number },
  bytesMax: number,
): Generator<{ readonly offset: number; readonly bytes: number }> {
  const end = range.offset + range.bytes;
  for (let offset = range.offset; offset < end; offset += bytesMax) {
    yield { offset, bytes: Math.min(bytesMax, end - offset) };
  }
}
