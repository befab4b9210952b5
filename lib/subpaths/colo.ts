/**
 * A second copy in step (COLO): checkpoints of memory that goes on changing, and finding what changed.
 *
 * @example
 * ```ts
 * import { PageBitmap, RamBlock } from "multifd";
 * import { connectPrimary, listenSecondary } from "multifd/colo";
 *
 * await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0" });
 * const heap = RamBlock.allocate("heap", 1024 * 1024);
 * await using primary = await connectPrimary({ endpoint: secondary.endpoint, blocks: [heap] });
 * await primary.start();
 * const dirty = new PageBitmap(heap.pages);
 * heap.view(8192, 1)[0] = 7;
 * dirty.set(2);
 * await primary.checkpoint(dirty);
 * const { epoch } = await secondary.takeOver();
 * console.log(epoch, secondary.blocks[0]?.view(8192, 1)[0]); // 1 7
 * ```
 *
 * @module
 */
export {
  ColoPrimary,
  connectPrimary,
  type CheckpointContent,
  type CheckpointLoop,
  type DirtyPages,
  type PrimaryOptions,
} from "../colo/primary.ts";
export {
  ColoSecondary,
  listenSecondary,
  type SecondaryEvents,
  type SecondaryFailOver,
  type SecondaryOptions,
} from "../colo/secondary.ts";
export type {
  CheckpointStatistics,
  CheckpointSummary,
  Spread,
} from "../colo/checkpoint_statistics.ts";
export type { FailOver, PendingCheckpoint } from "../colo/colo_progress.ts";
export type { ReceivedCheckpoint } from "../colo/colo_messages.ts";
export type { DirtyTracker, TrackingMethod } from "../memory/dirty_tracker.ts";
export {
  trackDirtyPages,
  trackDirtyPagesBlocking,
  type TrackingOptions,
} from "../memory/track_dirty_pages.ts";
