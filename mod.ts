/**
 * QEMU's multifd migration for Bun: memory images over N parallel, compressed channels.
 *
 * @example
 * ```ts
 * import { connect, listen, RamBlock } from "multifd";
 *
 * await using receiver = await listen({ endpoint: "127.0.0.1:0", channels: 4, compression: "zstd" });
 * const block = RamBlock.allocate("pc.ram", 64 * 1024 * 1024);
 * await using sender = await connect({
 *   endpoint: receiver.endpoint,
 *   channels: 4,
 *   compression: "zstd",
 *   blocks: [block],
 * });
 * await sender.send();
 * const [statistics] = await Promise.all([sender.complete(), receiver.complete()]);
 * console.log(statistics.wireBytes);
 * ```
 *
 * @module
 */
export { connect, Sender } from "./lib/session/sender.ts";
export { listen, Receiver } from "./lib/session/receiver.ts";
export { BlockingSender, connectBlocking } from "./lib/session/connect_blocking.ts";
export { BlockingReceiver, listenBlocking } from "./lib/session/listen_blocking.ts";
export {
  prepare,
  PreparedThreads,
  releaseThreads,
  type PrepareOptions,
} from "./lib/session/prepare.ts";
export { relay, Relay, type RelayStatistics } from "./lib/relay/relay.ts";
export type {
  ReturnPathOptions,
  SessionWarning,
  WarningOptions,
} from "./lib/session/session_warning.ts";
export type { RelayEnd, RelayOptions } from "./lib/relay/relay_config.ts";
export { analyze, type AnalyzeOptions } from "./lib/qemu/analyze.ts";
export type { AnalyzedBlock, Analysis } from "./lib/qemu/analyze_file.ts";
export type { DeviceField, DeviceSubsection } from "./lib/qemu/device_parser.ts";
export type { AnalyzedDevice, AnalyzedSection } from "./lib/qemu/device_sections.ts";
export { record, Recorder, type RecordOptions } from "./lib/qemu/record.ts";
export { restore, Restorer, type RestoreOptions } from "./lib/qemu/restore.ts";
export { InstantRestorer, type InstantRestoreOptions } from "./lib/qemu/restore_instant.ts";
export type { InstantProgress } from "./lib/qemu/instant_statistics.ts";
export {
  orderedPages,
  readPageOrder,
  type OrderedBlock,
  type PageOrder,
} from "./lib/qemu/page_order.ts";
export { openGuest, type GuestFile } from "./lib/pages/guest_file.ts";
export { Recording, writeRecording, type RecordingContent } from "./lib/recording/recording.ts";
export type {
  CheckedRange,
  RecordedBlock,
  RecordedRange,
  RecordingMetadata,
} from "./lib/recording/recording_layout.ts";
export type {
  ConnectOptions,
  DeviceOptions,
  DeviceStateOptions,
  LimitOptions,
  LinkOptions,
  ListenOptions,
  ReceivingOptions,
  SendingOptions,
  SessionOptions,
  SourceOptions,
  TargetOptions,
  Timeouts,
  ZeroPageDetection,
  SendOptions,
} from "./lib/session/options.ts";
export { BandwidthLimit } from "./lib/sync/bandwidth_limit.ts";
export type { SwitchoverAck } from "./lib/session/switchover_ack.ts";
export { RamBlock, type SharedRamBlock } from "./lib/memory/ram_block.ts";
export type { SharedResidency } from "./lib/memory/residency.ts";
export type { ImageOptions, MapOptions, RamBlockOptions } from "./lib/memory/ram_block_options.ts";
export type { FilePlace } from "./lib/storage/opened_file.ts";
export type { Segment } from "./lib/memory/block_memory.ts";
export {
  ColoPrimary,
  connectPrimary,
  type CheckpointContent,
  type CheckpointLoop,
  type DirtyPages,
  type PrimaryOptions,
} from "./lib/colo/primary.ts";
export {
  ColoSecondary,
  listenSecondary,
  type SecondaryEvents,
  type SecondaryFailOver,
  type SecondaryOptions,
} from "./lib/colo/secondary.ts";
export type {
  CheckpointStatistics,
  CheckpointSummary,
  Spread,
} from "./lib/colo/checkpoint_statistics.ts";
export type { FailOver, PendingCheckpoint } from "./lib/colo/colo_progress.ts";
export type { ReceivedCheckpoint } from "./lib/colo/colo_messages.ts";
export { saveBlocks, type BlockImage } from "./lib/memory/save_blocks.ts";
export type { DirtyTracker, TrackingMethod } from "./lib/memory/dirty_tracker.ts";
export {
  trackDirtyPages,
  trackDirtyPagesBlocking,
  type TrackingOptions,
} from "./lib/memory/track_dirty_pages.ts";
export { PageBitmap, type PageRun } from "./lib/memory/page_bitmap.ts";
export { openSnapshot, Snapshot, type OpenSnapshotOptions } from "./lib/snapshot/snapshot.ts";
export {
  PageFaultServer,
  servePageFaults,
  type PagedImage,
  type PageFaultOptions,
} from "./lib/paging/serve_page_faults.ts";
export type { FirstPages } from "./lib/paging/first_pages.ts";
export type { FaultClientEnd, FaultClientFacts } from "./lib/paging/fault_server_messages.ts";
export {
  AttachedRam,
  type AttachOptions,
  type AttachStatistics,
  type PagedBlock,
  type PagedBlocks,
  type PagedFile,
} from "./lib/paging/attached_ram.ts";
export type { LoadOptions } from "./lib/snapshot/load_options.ts";
export type { LoadedRam, PreparedLoad } from "./lib/snapshot/prepared_load.ts";
export {
  PageSource,
  type PageBlock,
  type SharedPageBlock,
  type SharedPages,
} from "./lib/snapshot/page_source.ts";
export type { SharedFrameCache } from "./lib/snapshot/frame_cache.ts";
export type { SharedSeekTable } from "./lib/snapshot/seek_table.ts";
export {
  createSnapshot,
  SnapshotWriter,
  type CreateSnapshotOptions,
} from "./lib/snapshot/snapshot_writer.ts";
export {
  compressSnapshot,
  type CompressedSnapshot,
  type CompressSnapshotOptions,
} from "./lib/snapshot/compress_snapshot.ts";
export {
  copySnapshot,
  type CopiedSnapshot,
  type CopySnapshotOptions,
  type PageChanges,
} from "./lib/snapshot/copy_snapshot.ts";
export {
  diffSnapshots,
  type BlockPageRun,
  type DiffOptions,
  type PageReader,
} from "./lib/snapshot/diff_snapshots.ts";
export {
  readDeviceState,
  readGuestState,
  type ReadStateOptions,
} from "./lib/snapshot/guest_state.ts";
export { extractBlock, type ExtractOptions } from "./lib/snapshot/extract_block.ts";
export {
  snapshotDevices,
  verifySnapshot,
  type VerifiedSnapshot,
  type VerifyOptions,
} from "./lib/snapshot/verify_snapshot.ts";
export { parseFileUri, type FileUri } from "./lib/snapshot/file_uri.ts";
export type { FileChannelOptions } from "./lib/snapshot/file_channels.ts";
export type { SnapshotBlock, SnapshotIndex } from "./lib/snapshot/snapshot_index.ts";
export type { SnapshotRegion } from "./lib/snapshot/mapped_ram_format.ts";
export type { ChannelStatistics, Statistics } from "./lib/engine/statistics.ts";
export { COMPRESSION_METHODS, type CompressionMethod } from "./lib/codec/methods.ts";
export type { Compression, ResolvedCompression } from "./lib/codec/registry.ts";
export {
  PageStreamDecoder,
  PageStreamEncoder,
  type PageStreamOptions,
} from "./lib/codec/page_stream.ts";
export { ENGINE_NAMES, type EngineName } from "./lib/codec/engine.ts";
export {
  capabilities,
  type Capabilities,
  type EngineCapability,
  type LibraryCapability,
  type MethodCapability,
  type PageFaultCapability,
  type TlsCapability,
} from "./lib/capabilities.ts";
export { machineSyncMode } from "./lib/wire/machine_type.ts";
export type { SyncMode } from "./lib/wire/sync_points.ts";
export type { GuestState } from "./lib/wire/opaque_state.ts";
export type { AnnouncedBlock, StreamConfiguration } from "./lib/wire/main_stream.ts";
export { formatEndpoint, parseEndpoint, type Endpoint } from "./lib/net/endpoint.ts";
export type { TcpEndpoint } from "./lib/net/tcp.ts";
export type { AbstractUnixEndpoint, UnixEndpoint } from "./lib/net/unix.ts";
export type { TlsOptions, TlsPskOptions, TlsX509Options } from "./lib/net/tls_options.ts";
export type { TlsStatistics, TlsSuite } from "./lib/net/tls_suites.ts";
export {
  DeviceClient,
  type DeviceClientHandle,
  type PreparedBuffer,
} from "./lib/engine/device_client.ts";
export type { DeviceFormat, DeviceIdentity } from "./lib/engine/device_table.ts";
export type {
  DeviceCode,
  DeviceDefinition,
  DeviceSettings,
  DeviceProgress,
  DescriptorState,
  MemoryState,
} from "./lib/device/device.ts";
export { descriptorDevice, type DescriptorDeviceOptions } from "./lib/device/descriptor_device.ts";
export { memoryDevice, type MemoryDeviceOptions } from "./lib/device/memory_device.ts";
export type { SaveDevice } from "./lib/device/save_context.ts";
export type { LoadDevice, LoadedBuffer } from "./lib/device/load_context.ts";
export { ThreadPool } from "./lib/thread/thread_pool.ts";
export type { FailedTask, TaskContext, ThreadPoolOptions } from "./lib/thread/task_pool.ts";
export type { WorkerFunction } from "./lib/thread/worker_function.ts";
export {
  CancelledError,
  ChannelError,
  CodecError,
  describeError,
  DeviceError,
  DigestError,
  HandshakeError,
  LimitError,
  PacketError,
  PeerError,
  type PeerFailure,
  StreamError,
  TimeoutError,
  TlsError,
} from "./lib/errors.ts";
export { MissingLibraryError, MultifdError, SystemError, type ErrorContext } from "./ffi/errors.ts";
