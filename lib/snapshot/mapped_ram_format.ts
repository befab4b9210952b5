/**
 * The layout of mapped-ram files (mapped-ram description, section 1): ordinary migration stream, but
 * every RAM block of the list is followed by a header that says where in the file its bitmap and its
 * pages are, and the stream continues behind the pages.
 *
 * ```
 *   block id, length │ header │ bitmap │ padding │ pages, exactly `length` bytes │ next block …
 *                             ▲ bitmapOffset     ▲ pagesOffset, a multiple of 1 MiB
 * ```
 *
 * @module
 */
import { LimitError, StreamError } from "../errors.ts";
import { BLOCK_PAGES_MAX, PAGE_SIZES } from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import type { ByteWriter } from "../wire/byte_writer.ts";
import type { AnnouncedBlock } from "../wire/main_stream.ts";

/*
 * Header of a block, big-endian, unaligned:
 *
 *    0  u32 version          12  u64 file offset of the bitmap
 *    4  u64 page size        20  u64 file offset of page 0
 */
const VERSION = 1;
/** Length of a block's header in bytes. */
export const REGION_HEADER_BYTES = 4 + 3 * 8;
if (REGION_HEADER_BYTES !== 28) throw new RangeError("Mapped-ram header must be 28 bytes");

/**
 * Alignment of a block's pages in the file: above the block size of any device the file may be moved
 * to, so that it can be read with O_DIRECT there.
 */
const PAGES_ALIGNMENT_BYTES = 0x10_0000;

/** Name of the capability in the configuration section. */
export const MAPPED_RAM_CAPABILITY = "mapped-ram";
/** With this capability each block has its physical address in front of the header. */
export const IGNORE_SHARED_CAPABILITY = "x-ignore-shared";

/** Where a RAM block lies in a file; offsets are absolute, a start offset is included in them. */
export interface SnapshotRegion {
  /** Name of the RAM block. */
  readonly idstr: string;
  /** Length of the block in bytes. */
  readonly bytes: number;
  /** Page size of the source in bytes. */
  readonly pageSize: number;
  /** File offset of the bitmap, whose length is `PageBitmap.bytesFor(bytes / pageSize)`. */
  readonly bitmapOffset: number;
  /** File offset of page 0; page n is `n * pageSize` bytes behind it. */
  readonly pagesOffset: number;
}

/** Places a block whose header will stand at file offset `headerOffset`. */
export function layOutRegion(
  block: AnnouncedBlock,
  pageSize: number,
  headerOffset: number,
): SnapshotRegion {
  const bitmapOffset = headerOffset + REGION_HEADER_BYTES;
  const bitmapEnd = bitmapOffset + PageBitmap.bytesFor(block.bytes / pageSize);
  const pagesOffset = Math.ceil(bitmapEnd / PAGES_ALIGNMENT_BYTES) * PAGES_ALIGNMENT_BYTES;
  return { idstr: block.idstr, bytes: block.bytes, pageSize, bitmapOffset, pagesOffset };
}

/** Writes a block's header. */
export function writeRegionHeader(out: ByteWriter, region: SnapshotRegion): void {
  out.u32(VERSION);
  out.u64(region.pageSize);
  out.u64(region.bitmapOffset);
  out.u64(region.pagesOffset);
}

/** What the reader of a block's header knows besides the header. */
export interface RegionContext {
  /** File offset of the header. */
  readonly headerOffset: number;
  /** Length of the file in bytes. */
  readonly fileBytes: number;
  /** Whether the block may have been left out of the file. */
  readonly ignoreShared: boolean;
}

/**
 * Reads and checks a block's header. The bitmap must lie behind the header, the pages behind the
 * bitmap, and both within the file, so that no two regions of a file overlap.
 *
 * @returns Undefined for a block that was left out of the file as shared memory.
 * @throws {StreamError} for a header that breaks the format, {LimitError} for an oversized block.
 */
export function readRegionHeader(
  reader: ByteReader,
  block: AnnouncedBlock,
  context: RegionContext,
): SnapshotRegion | undefined {
  const { idstr, bytes } = block;
  const name = JSON.stringify(idstr);
  const version = reader.u32();
  const pageSize = reader.u64();
  const bitmapOffset = reader.u64();
  const pagesOffset = reader.u64();
  if (version > VERSION) {
    throw fileError(
      "VERSION",
      `header of block ${name} has version ${version}, at most ${VERSION}`,
    );
  }
  if (!PAGE_SIZES.includes(pageSize)) {
    throw fileError(
      "PAGE_SIZE",
      `block ${name} has pages of ${pageSize} bytes, must be one of ${PAGE_SIZES.join(", ")}`,
    );
  }
  if (bytes % pageSize !== 0) {
    throw fileError("PAGE_SIZE", `block ${name} of ${bytes} bytes, must be whole pages`);
  }
  if (bytes / pageSize > BLOCK_PAGES_MAX) {
    throw new LimitError(
      "ERR_MULTIFD_LIMIT_BLOCKS",
      `Cannot read mapped-ram file: block ${name} has ${bytes / pageSize} pages, at most ${BLOCK_PAGES_MAX}`,
    );
  }
  if (context.ignoreShared && bitmapOffset === 0 && pagesOffset === 0) return undefined;
  const headerEnd = context.headerOffset + REGION_HEADER_BYTES;
  const bitmapEnd = bitmapOffset + PageBitmap.bytesFor(bytes / pageSize);
  if (bitmapOffset < headerEnd || bitmapEnd > pagesOffset) {
    throw fileError(
      "BITMAP_OFFSET",
      `bitmap of block ${name} is at ${bitmapOffset} to ${bitmapEnd}, must be between ${headerEnd} and its pages at ${pagesOffset}`,
    );
  }
  if (pagesOffset % pageSize !== 0) {
    throw fileError(
      "PAGES_OFFSET",
      `pages of block ${name} are at ${pagesOffset}, must be a multiple of ${pageSize}`,
    );
  }
  if (pagesOffset + bytes > context.fileBytes) {
    throw fileError(
      "TRUNCATED",
      `pages of block ${name} end at ${pagesOffset + bytes}, the file at ${context.fileBytes}`,
    );
  }
  return { idstr, bytes, pageSize, bitmapOffset, pagesOffset };
}

/** An error about the content of a mapped-ram file; the code ends with `part`. */
export function fileError(part: string, reason: string): StreamError {
  return new StreamError(`ERR_MULTIFD_STREAM_${part}`, `Cannot read mapped-ram file: ${reason}`);
}
