/**
 * What finds the pages that changed since the last look, in this process and without a hypervisor.
 *
 * @module
 */
import type { PageBitmap } from "./page_bitmap.ts";

/**
 * How changes are found: the caller marks them in a bitmap, memory is compared with a copy of it, or
 * the kernel notes which pages are written.
 */
export type TrackingMethod = "bitmap" | "compare" | "write-protect";

/**
 * Tracks one block from the moment it was made. Both forms of fetching mean the same: bits of pages
 * that changed since the fetch before are set in `dirty`, others are left as they are. A page that
 * changes during a fetch is in this one or in the next, so what is sent after a fetch is never older
 * than what the fetch has seen.
 */
export interface DirtyTracker extends Disposable {
  /** Which method is in use. */
  readonly method: TrackingMethod;
  /** Why not a better one, when the choice was automatic. */
  readonly reason: string | undefined;
  /**
   * Fetches while the event loop stays free. One fetch at a time.
   *
   * @throws {RangeError} when `dirty` has another number of pages than the block.
   */
  fetch(dirty: PageBitmap): Promise<void>;
  /** The same for a thread that may block, such as a worker. */
  fetchBlocking(dirty: PageBitmap): void;
}

/** @throws {RangeError} unless `dirty` has one bit for each of `pages` pages. */
export function checkBitmap(dirty: PageBitmap, pages: number): void {
  if (dirty.pages !== pages) {
    throw new RangeError(
      `Cannot fetch dirty pages: the bitmap has ${dirty.pages} pages, must be ${pages}`,
    );
  }
}
