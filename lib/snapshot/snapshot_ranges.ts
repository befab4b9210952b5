/**
 * A mapped-ram file from front to back: what is stream and bitmaps, and what is pages.
 *
 * @module
 */
import { isZero } from "../../ffi/libc.ts";
import type { MappedRamBlock, MappedRamIndex } from "./mapped_ram_index.ts";

/** A range of a file, in bytes. */
export interface SnapshotRange {
  readonly offset: number;
  readonly bytes: number;
  /** The block whose pages these are; undefined for everything else. */
  readonly block: MappedRamBlock | undefined;
}

/** All ranges of a file in its order; together they cover it. */
export function* snapshotRanges(index: MappedRamIndex): Generator<SnapshotRange> {
  let offset = 0;
  for (const block of index.blocks) {
    const { pagesOffset, bytes } = block;
    if (pagesOffset > offset) yield { offset, bytes: pagesOffset - offset, block: undefined };
    yield { offset: pagesOffset, bytes, block };
    offset = pagesOffset + bytes;
  }
  if (index.fileBytes > offset) {
    yield { offset, bytes: index.fileBytes - offset, block: undefined };
  }
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

const HOLE_BYTES = 4096; // smallest hole a file system makes

/** Byte ranges of memory that are worth writing: all but pieces of 4 KiB that are zero. */
export function* dataRuns(
  address: number,
  bytes: number,
): Generator<{ readonly start: number; readonly end: number }> {
  let start = -1;
  for (let at = 0; at < bytes; at += HOLE_BYTES) {
    const hole = isZero(address + at, Math.min(HOLE_BYTES, bytes - at));
    if (hole && start >= 0) yield { start, end: at };
    if (hole) start = -1;
    else if (start < 0) start = at;
  }
  if (start >= 0) yield { start, end: bytes };
}
