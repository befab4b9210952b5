/**
 * Chooses how to find the pages of a block that change.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { SystemError } from "../errors.ts";
import type { DirtyTracker, TrackingMethod } from "./dirty_tracker.ts";
import { BitmapTracker } from "./dirty_tracker_bitmap.ts";
import { CompareTracker } from "./dirty_tracker_compare.ts";
import { WriteProtectTracker } from "./dirty_tracker_protect.ts";
import { PageBitmap } from "./page_bitmap.ts";
import { crewThreads } from "./page_crew.ts";
import type { RamBlock } from "./ram_block.ts";

/** How to track a block. */
export interface TrackingOptions {
  /**
   * Default `auto`: `bitmap` when one is given, else `write-protect` where the kernel allows it
   * (Linux 6.7 and later, memory of this process), else `compare`.
   */
  readonly method?: TrackingMethod | "auto" | undefined;
  /** The bitmap in which the writers mark what they have changed. */
  readonly bitmap?: PageBitmap | undefined;
  /** Threads that compare; default up to 4. */
  readonly threads?: number | undefined;
}

const TRACKING_OPTIONS = {
  method: true,
  bitmap: true,
  threads: true,
} satisfies OptionNames<TrackingOptions>;

/**
 * Starts to track the pages of `block`. The tracker's `method` says which way was taken, its `reason`
 * why a better one was not.
 *
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {SystemError} when `write-protect` is demanded and not possible.
 *
 * @example
 * ```ts
 * using tracker = await trackDirtyPages(block);
 * const dirty = new PageBitmap(block.pages);
 * await tracker.fetch(dirty); // pages that changed since the line above
 * ```
 */
export async function trackDirtyPages(
  block: RamBlock,
  options: TrackingOptions = {},
): Promise<DirtyTracker> {
  const { tracker, threads, reason } = choose(block, options);
  return tracker ?? CompareTracker.create(block, threads, reason);
}

/** As {@linkcode trackDirtyPages}, for a thread that may block. */
export function trackDirtyPagesBlocking(
  block: RamBlock,
  options: TrackingOptions = {},
): DirtyTracker {
  const { tracker, threads, reason } = choose(block, options);
  return tracker ?? CompareTracker.createBlocking(block, threads, reason);
}

interface Choice {
  /** Absent: compare. */
  readonly tracker?: DirtyTracker;
  readonly threads: number;
  readonly reason?: string;
}

function choose(block: RamBlock, options: TrackingOptions): Choice {
  checkOptionNames(TRACKING_OPTIONS, options);
  const { method = "auto", bitmap, threads = crewThreads() } = options;
  if (!Number.isInteger(threads) || threads < 1 || threads > 64) {
    throw new RangeError(`Cannot track with ${threads} threads: must be 1 to 64`);
  }
  if (method === "bitmap" || (method === "auto" && bitmap !== undefined)) {
    if (!(bitmap instanceof PageBitmap) || bitmap.pages !== block.pages) {
      throw new TypeError(
        `Cannot track RAM block ${block.idstr} by bitmap: one of ${block.pages} pages must be given`,
      );
    }
    return { tracker: new BitmapTracker(bitmap), threads };
  }
  if (method === "compare") return { threads };
  if (method !== "auto" && method !== "write-protect") {
    throw new RangeError(
      `Cannot track by ${method as string}: must be auto, bitmap, compare or write-protect`,
    );
  }
  const made = WriteProtectTracker.create(block);
  if (typeof made !== "string") return { tracker: made, threads };
  if (method === "write-protect") {
    throw new SystemError(`Cannot track RAM block ${block.idstr} by write protection: ${made}`);
  }
  return { threads, reason: made };
}
