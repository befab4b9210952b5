/**
 * First code of every thread: runs the job it was started for and reports its end. The one place that
 * knows which feature has which role.
 *
 * @module
 */
import { workerData } from "node:worker_threads";
import type { ColoPrimaryJob, ColoSecondaryJob } from "./colo/colo_messages.ts";
import type { FileChannelJob } from "./snapshot/file_channel_messages.ts";
import type { IndexJob } from "./snapshot/index_messages.ts";
import type { PageWorkerJob } from "./memory/page_worker.ts";
import type { AnalyzerJob } from "./qemu/analysis_messages.ts";
import type { RecordingJob } from "./recording/recording_messages.ts";
import type { RelayJob, RelayReturnJob } from "./relay/relay_messages.ts";
import type { ReceiveChannelJob, SendChannelJob } from "./session/channel_messages.ts";
import type { ReceiverJob, SenderJob } from "./session/session_messages.ts";
import type { PoolJob } from "./thread/pool_messages.ts";
import { markEnded, WorkerState } from "./thread/worker_group.ts";

/** Everything a thread can be started for. */
type WorkerJob =
  | SendChannelJob
  | ReceiveChannelJob
  | SenderJob
  | ReceiverJob
  | (PoolJob & { readonly role: "pool" | "save" | "load" })
  | PageWorkerJob
  | FileChannelJob
  | IndexJob
  | RecordingJob
  | AnalyzerJob
  | RelayJob
  | RelayReturnJob
  | ColoPrimaryJob
  | ColoSecondaryJob;

const start = workerData as { readonly job: WorkerJob; readonly state: SharedArrayBuffer };
const words = new Int32Array(start.state);
Atomics.store(words, 0, WorkerState.RUNNING);
void run(start.job).finally(() => markEnded(words));

/** Loads only what the job needs: a channel's thread starts in half the time without the sessions. */
async function run(job: WorkerJob): Promise<void> {
  switch (job.role) {
    case "send-channel":
      return (await import("./session/channel_worker.ts")).runSendChannel(job);
    case "receive-channel":
      return (await import("./session/channel_worker.ts")).runReceiveChannel(job);
    case "sender":
      return (await import("./session/session_worker.ts")).runSender(job);
    case "receiver":
      return (await import("./session/session_worker.ts")).runReceiver(job);
    case "pool":
      return (await import("./thread/pool_worker.ts")).runPoolWorker(job);
    case "save":
      return (await import("./device/save_thread.ts")).runSavePool(job);
    case "load":
      return (await import("./device/load_thread.ts")).runLoadPool(job);
    case "page-worker":
      return (await import("./memory/page_worker.ts")).runPageWorker(job);
    case "file-channel":
      return (await import("./snapshot/file_channel_worker.ts")).runFileChannel(job);
    case "index-reader":
      return (await import("./snapshot/index_worker.ts")).runIndexReader(job);
    case "recording-reader":
      return (await import("./recording/recording_worker.ts")).runRecordingReader(job);
    case "analyzer":
      return (await import("./qemu/analysis_worker.ts")).runAnalyzer(job);
    case "relay":
      return (await import("./relay/relay_worker.ts")).runRelay(job);
    case "relay-return":
      return (await import("./relay/relay_worker.ts")).runRelayReturn(job);
    case "colo-primary":
      return (await import("./colo/colo_worker.ts")).runColoPrimary(job);
    case "colo-secondary":
      return (await import("./colo/colo_worker.ts")).runColoSecondary(job);
  }
}
