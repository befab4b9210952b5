/**
 * What an image consists of: its size, how much of it is zero, and its digest.
 *
 * @module
 */

import { open } from "node:fs/promises";

/** Facts about one image. */
export interface ImageFacts {
  readonly bytes: number;
  /** Pages of 4 KiB that hold nothing but zeros. */
  readonly zeroPages: number;
  /** In hex. */
  readonly sha256: string;
}

const PAGE_BYTES = 4096;
const PIECE_BYTES = 1 << 22; // an image need not fit in memory beside a running contender
const ZERO_PAGE = new Uint8Array(PAGE_BYTES);

/**
 * Reads an image once.
 *
 * @throws {RangeError} If it is empty or not a whole number of pages.
 */
export async function imageFacts(path: string): Promise<ImageFacts> {
  const hasher = new Bun.CryptoHasher("sha256");
  const piece = Buffer.alloc(PIECE_BYTES);
  await using file = await open(path);
  let bytes = 0;
  let zeroPages = 0;
  for (;;) {
    const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, bytes);
    if (bytesRead === 0) break;
    bytes += bytesRead;
    hasher.update(piece.subarray(0, bytesRead));
    for (let at = 0; at < bytesRead; at += PAGE_BYTES) {
      const page = piece.subarray(at, at + PAGE_BYTES);
      if (page.equals(ZERO_PAGE)) zeroPages++;
    }
  }
  if (bytes === 0 || bytes % PAGE_BYTES !== 0) {
    throw new RangeError(`Cannot use ${path}: ${bytes} bytes, must be whole pages of 4096`);
  }
  return { bytes, zeroPages, sha256: hasher.digest("hex") };
}
