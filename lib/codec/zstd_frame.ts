/**
 * The parts of zstd's format that the library writes itself: a frame's header and raw blocks
 * (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
 *
 * @module
 */
import { FAST_WINDOW_BITS } from "../../ffi/libzstd.ts";

const MAGIC = 0xfd2f_b528;
/** Neither content size nor checksum nor dictionary; a window descriptor follows. */
const DESCRIPTOR = 0;
const WINDOW_BITS_MIN = 10;

/** Length of a frame's header as {@linkcode writeFrameHeader} writes it. */
export const FRAME_HEADER_BYTES = 6;
/** Length of a block's header. */
export const BLOCK_HEADER_BYTES = 3;
/** The most content of a block, in a frame whose window is at least as large. */
export const BLOCK_BYTES_MAX = 131_072;

/**
 * Writes the header of a frame whose size is not known. Its window is that of the fast levels, so that
 * a reader's buffer needs no other size.
 */
export function writeFrameHeader(output: Uint8Array, at: number): void {
  for (let byte = 0; byte < 4; byte++) output[at + byte] = MAGIC >>> (8 * byte);
  output[at + 4] = DESCRIPTOR;
  output[at + 5] = (FAST_WINDOW_BITS - WINDOW_BITS_MIN) << 3;
}

/** Writes the header of a block of `bytes` bytes that are not compressed. */
export function writeRawBlockHeader(
  output: Uint8Array,
  at: number,
  bytes: number,
  last: boolean,
): void {
  const word = (bytes << 3) | (last ? 1 : 0); // block type raw is 0
  for (let byte = 0; byte < BLOCK_HEADER_BYTES; byte++) output[at + byte] = word >>> (8 * byte);
}
