/**
 * Tracking by whoever writes: every writer sets the bit of a page after it has changed it.
 *
 * @module
 */
import type { DirtyTracker } from "./dirty_tracker.ts";
import type { PageBitmap } from "./page_bitmap.ts";

/** See the module comment. */
export class BitmapTracker implements DirtyTracker {
  readonly method = "bitmap";
  readonly reason = undefined;
  readonly #bitmap: PageBitmap;

  /** @param bitmap The writers' bitmap; fetching clears it. */
  constructor(bitmap: PageBitmap) {
    this.#bitmap = bitmap;
  }

  fetch(dirty: PageBitmap): Promise<void> {
    this.fetchBlocking(dirty);
    return Promise.resolve();
  }

  fetchBlocking(dirty: PageBitmap): void {
    this.#bitmap.drainInto(dirty);
  }

  [Symbol.dispose](): void {}
}
