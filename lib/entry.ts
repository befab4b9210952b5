/**
 * Program of the threads that are not only channels. The one place that knows which feature has which
 * role.
 *
 * @module
 */
import type { ColoPrimaryJob, ColoSecondaryJob } from "./colo/colo_messages.ts";
import type { FileChannelJob } from "./snapshot/file_channel_messages.ts";
import type { IndexJob } from "./snapshot/index_messages.ts";
import type { TransportChoice } from "./net/transport_of_session.ts";
import type { Transport } from "./net/transport.ts";
import type { SnapshotPagesJob } from "./snapshot/snapshot_pages.ts";
import type { AnalyzerJob } from "./qemu/analysis_messages.ts";
import type { InstantJob } from "./qemu/instant_messages.ts";
import type { RecordingPagesJob } from "./recording/recording_pages.ts";
import type { RecordingJob } from "./recording/recording_messages.ts";
import type { RelayChannelJob, RelayJob, RelayReturnJob } from "./relay/relay_messages.ts";
import type { RehearsalJob } from "./rehearsal/rehearse.ts";
import type { ReceiveChannelJob, SendChannelJob } from "./session/channel_messages.ts";
import type { GetReadyJob } from "./session/prepare.ts";
import type { ReceiverJob, SenderJob } from "./session/session_messages.ts";
import type { PoolJob } from "./thread/pool_messages.ts";
import { serveJobs, unknownRole } from "./thread/serve_jobs.ts";

/** Everything such a thread can be started for. */
type WorkerJob =
  | SenderJob
  | ReceiverJob
  | SendChannelJob
  | ReceiveChannelJob
  | (PoolJob & { readonly role: "pool" | "save" | "load" })
  | FileChannelJob
  | IndexJob
  | SnapshotPagesJob
  | RecordingJob
  | RecordingPagesJob
  | AnalyzerJob
  | InstantJob
  | RelayJob
  | RelayChannelJob
  | RelayReturnJob
  | ColoPrimaryJob
  | ColoSecondaryJob
  | RehearsalJob
  | GetReadyJob;

serveJobs(run);

/** Loads only what the job needs. */
async function run(job: WorkerJob): Promise<void> {
  switch (job.role) {
    case "sender":
      return (await import("./session/session_worker.ts")).runSender(job);
    case "receiver":
      return (await import("./session/session_worker.ts")).runReceiver(job);
    case "send-channel":
      return (await import("./session/channel_worker.ts")).runSendChannel(
        job,
        await transport(job),
      );
    case "receive-channel":
      return (await import("./session/channel_worker.ts")).runReceiveChannel(
        job,
        await transport(job),
      );
    case "get-ready":
      return void (await import("./session/session_worker.ts"));
    case "rehearse":
      return (await import("./rehearsal/rehearse.ts")).rehearse(job);
    case "pool":
      return (await import("./thread/pool_worker.ts")).runPoolWorker(job);
    case "save":
      return (await import("./device/save_thread.ts")).runSavePool(job);
    case "load":
      return (await import("./device/load_thread.ts")).runLoadPool(job);
    case "file-channel":
      return (await import("./snapshot/file_channel_worker.ts")).runFileChannel(job);
    case "index-reader":
      return (await import("./snapshot/index_worker.ts")).runIndexReader(job);
    case "snapshot-pages":
      return (await import("./snapshot/snapshot_pages.ts")).runSnapshotPages(job);
    case "recording-pages":
      return (await import("./recording/recording_pages.ts")).runRecordingPages(job);
    case "recording-reader":
      return (await import("./recording/recording_worker.ts")).runRecordingReader(job);
    case "analyzer":
      return (await import("./qemu/analysis_worker.ts")).runAnalyzer(job);
    case "instant":
      return (await import("./qemu/instant_worker.ts")).runInstant(job);
    case "relay":
      return (await import("./relay/relay_worker.ts")).runRelay(job);
    case "relay-channel":
      return (await import("./relay/relay_channel_worker.ts")).runRelayChannel(
        job,
        await transport(job),
      );
    case "relay-return":
      return (await import("./relay/relay_worker.ts")).runRelayReturn(job);
    case "colo-primary":
      return (await import("./colo/colo_worker.ts")).runColoPrimary(job);
    case "colo-secondary":
      return (await import("./colo/colo_worker.ts")).runColoSecondary(job);
    default:
      return unknownRole(job);
  }
}

/** How a channel's bytes travel; what encrypts them is not in the program of plain channels. */
async function transport(job: TransportChoice): Promise<Transport> {
  return (await import("./net/transport_of_session.ts")).sessionTransport(job);
}
