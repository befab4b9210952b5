/**
 * Options of RAM blocks.
 *
 * @module
 */
import { BLOCK_PAGES_MAX, PAGE_SIZES } from "../limits.ts";
import type { OptionNames } from "../option_names.ts";

/** How a block is made. */
export interface RamBlockOptions {
  /** Target page size in bytes: 4096 (default), 8192, 16384 or 65536. */
  pageSize?: number | undefined;
  /** Touch all memory now, so that no page fault falls into the transfer. Default false. */
  prefault?: boolean | undefined;
  /** Ask for huge pages, which makes copying cheaper. Default true. */
  hugePages?: boolean | undefined;
  /** The caller vouches that the memory is all zero, so that zero pages need not be written. */
  zeroed?: boolean | undefined;
}

/** What of a file to map. */
export interface MapOptions extends RamBlockOptions {
  /** Allow writing, which changes the file. Default false. */
  writable?: boolean | undefined;
  /** First byte in the file, a multiple of the page size. Default 0. */
  offset?: number | undefined;
  /** Length in bytes. Default: to the end of the file. */
  bytes?: number | undefined;
}

/** Names of {@linkcode RamBlockOptions}. */
export const BLOCK_OPTIONS = {
  pageSize: true,
  prefault: true,
  hugePages: true,
  zeroed: true,
} satisfies OptionNames<RamBlockOptions>;

/** Names of {@linkcode MapOptions}. */
export const MAP_OPTIONS = {
  ...BLOCK_OPTIONS,
  writable: true,
  offset: true,
  bytes: true,
} satisfies OptionNames<MapOptions>;

/** How memory is read from or written to an image file. */
export interface ImageOptions {
  /** Cancels the work. */
  signal?: AbortSignal | undefined;
}

/** Names of {@linkcode ImageOptions}. */
export const IMAGE_OPTIONS = { signal: true } satisfies OptionNames<ImageOptions>;

/** @throws {RangeError} unless `pageSize` is one a target may have. */
export function checkPageSize(pageSize: number): void {
  if (!PAGE_SIZES.includes(pageSize)) {
    throw new RangeError(
      `Cannot use page size ${pageSize}: must be one of ${PAGE_SIZES.join(", ")} bytes`,
    );
  }
}

/** @throws {RangeError} unless a block of that name can be so long. */
export function checkLength(idstr: string, bytes: number, pageSize: number): void {
  checkPageSize(pageSize);
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % pageSize !== 0) {
    throw new RangeError(
      `Cannot make RAM block ${idstr}: ${bytes} bytes, must be a positive multiple of the page size ${pageSize}`,
    );
  }
  if (bytes / pageSize > BLOCK_PAGES_MAX) {
    throw new RangeError(
      `Cannot make RAM block ${idstr}: ${bytes / pageSize} pages, at most ${BLOCK_PAGES_MAX} are allowed`,
    );
  }
}
