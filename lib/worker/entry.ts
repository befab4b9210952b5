/**
 * First code of every worker thread: runs the job it was started for and reports its end.
 *
 * @module
 */
import { workerData } from "node:worker_threads";
import type { WorkerJob } from "./messages.ts";
import { markEnded, WorkerState, type WorkerStart } from "./worker_group.ts";

const start = workerData as WorkerStart;
const words = new Int32Array(start.state);
Atomics.store(words, 0, WorkerState.RUNNING);
void run(start.job).finally(() => markEnded(words));

/** Loads only what the job needs: a channel's thread starts in half the time without the sessions. */
async function run(job: WorkerJob): Promise<void> {
  switch (job.role) {
    case "send-channel":
      return (await import("./channel_worker.ts")).runSendChannel(job);
    case "receive-channel":
      return (await import("./channel_worker.ts")).runReceiveChannel(job);
    case "file-channel":
      return (await import("./file_channel_worker.ts")).runFileChannel(job);
    case "sender":
      return (await import("./session_worker.ts")).runSender(job);
    case "receiver":
      return (await import("./session_worker.ts")).runReceiver(job);
    case "pool":
      return (await import("./pool_worker.ts")).runPoolWorker(job);
    case "relay":
      return (await import("./relay_worker.ts")).runRelay(job);
    case "relay-return":
      return (await import("./relay_worker.ts")).runRelayReturn(job);
    case "analyzer":
      return (await import("./analysis_worker.ts")).runAnalyzer(job);
    case "page-worker":
      return (await import("./page_worker.ts")).runPageWorker(job);
    case "colo-primary":
      return (await import("./colo_worker.ts")).runColoPrimary(job);
    case "colo-secondary":
      return (await import("./colo_worker.ts")).runColoSecondary(job);
  }
}
