/**
 * With a QEMU: recording a guest, restoring it, standing between two, and what is in a file.
 *
 * @example
 * ```ts
 * import { RamBlock } from "multifd";
 * import { analyze } from "multifd/qemu";
 * import { createSnapshot } from "multifd/snapshot";
 *
 * const blocks = [RamBlock.allocate("pc.ram", 1024 * 1024)];
 * await using writer = await createSnapshot({ path: "guest.snap", blocks });
 * await writer.write();
 * await writer.complete();
 * const analysis = await analyze("guest.snap"); // so with a file that QEMU wrote
 * console.log(analysis.kind, analysis.blocks[0]?.idstr); // mapped-ram pc.ram
 * ```
 *
 * @module
 */
export { relay, Relay, type RelayStatistics } from "../relay/relay.ts";
export type { SessionWarning, WarningOptions } from "../session/session_warning.ts";
export type { RelayEnd, RelayOptions } from "../relay/relay_config.ts";
export { analyze, type AnalyzeOptions } from "../qemu/analyze.ts";
export type { AnalyzedBlock, Analysis } from "../qemu/analyze_file.ts";
export type { DeviceField, DeviceSubsection } from "../qemu/device_parser.ts";
export type { AnalyzedDevice, AnalyzedSection } from "../qemu/device_sections.ts";
export { record, Recorder, type RecordOptions } from "../qemu/record.ts";
export { restore, Restorer, type RestoreOptions } from "../qemu/restore.ts";
export { InstantRestorer, type InstantRestoreOptions } from "../qemu/restore_instant.ts";
export type { InstantProgress } from "../qemu/instant_statistics.ts";
export {
  orderedPages,
  readPageOrder,
  type OrderedBlock,
  type PageOrder,
} from "../qemu/page_order.ts";
export { openGuest, type GuestFile } from "../pages/guest_file.ts";
export { Recording, writeRecording, type RecordingContent } from "../recording/recording.ts";
export type {
  CheckedRange,
  RecordedBlock,
  RecordedRange,
  RecordingMetadata,
} from "../recording/recording_layout.ts";
export { machineSyncMode } from "../wire/machine_type.ts";
export type { SyncMode } from "../wire/sync_points.ts";
export type { GuestState } from "../wire/opaque_state.ts";
export type { AnnouncedBlock, StreamConfiguration } from "../wire/main_stream.ts";
