/**
 * Snapshots: mapped-ram files, in which every page has a fixed place.
 *
 * @example
 * ```ts
 * import { RamBlock } from "multifd";
 * import { createSnapshot, openSnapshot } from "multifd/snapshot";
 *
 * const heap = RamBlock.allocate("heap", 1024 * 1024);
 * heap.view(3 * heap.pageSize, 1)[0] = 7;
 * await using writer = await createSnapshot({ path: "heap.snap", blocks: [heap] });
 * await writer.write();
 * await writer.complete();
 * using snapshot = await openSnapshot("heap.snap");
 * console.log(snapshot.readPage("heap", 3)[0]); // 7
 * ```
 *
 * @module
 */
export { openSnapshot, Snapshot, type OpenSnapshotOptions } from "../snapshot/snapshot.ts";
export {
  PageFaultServer,
  servePageFaults,
  type PagedImage,
  type PageFaultOptions,
} from "../paging/serve_page_faults.ts";
export type { FirstPages } from "../paging/first_pages.ts";
export type { FaultClientEnd, FaultClientFacts } from "../paging/fault_server_messages.ts";
export {
  AttachedRam,
  type AttachOptions,
  type AttachStatistics,
  type PagedBlock,
  type PagedBlocks,
  type PagedFile,
} from "../paging/attached_ram.ts";
export type { LoadOptions } from "../snapshot/load_options.ts";
export type { LoadedRam, PreparedLoad } from "../snapshot/prepared_load.ts";
export {
  PageSource,
  type PageBlock,
  type SharedPageBlock,
  type SharedPages,
} from "../snapshot/page_source.ts";
export type { SharedFrameCache } from "../snapshot/frame_cache.ts";
export type { SharedSeekTable } from "../snapshot/seek_table.ts";
export {
  createSnapshot,
  SnapshotWriter,
  type CreateSnapshotOptions,
} from "../snapshot/snapshot_writer.ts";
export {
  compressSnapshot,
  type CompressedSnapshot,
  type CompressSnapshotOptions,
} from "../snapshot/compress_snapshot.ts";
export {
  copySnapshot,
  type CopiedSnapshot,
  type CopySnapshotOptions,
  type PageChanges,
} from "../snapshot/copy_snapshot.ts";
export {
  diffSnapshots,
  type BlockPageRun,
  type DiffOptions,
  type PageReader,
} from "../snapshot/diff_snapshots.ts";
export { readDeviceState, readGuestState, type ReadStateOptions } from "../snapshot/guest_state.ts";
export { extractBlock, type ExtractOptions } from "../snapshot/extract_block.ts";
export {
  snapshotDevices,
  verifySnapshot,
  type VerifiedSnapshot,
  type VerifyOptions,
} from "../snapshot/verify_snapshot.ts";
export { parseFileUri, type FileUri } from "../snapshot/file_uri.ts";
export type { FileChannelOptions } from "../snapshot/file_channels.ts";
export type { SnapshotBlock, SnapshotIndex } from "../snapshot/snapshot_index.ts";
export type { SnapshotRegion } from "../snapshot/mapped_ram_format.ts";
