/**
 * First code of every worker thread: runs the job it was started for and reports its end.
 *
 * @module
 */
import { workerData } from "node:worker_threads";
import { runReceiveChannel, runSendChannel } from "./channel_worker.ts";
import { runPageWorker } from "./page_worker.ts";
import { runReceiver, runSender } from "./session_worker.ts";
import { runPoolWorker } from "./pool_worker.ts";
import type { WorkerJob } from "./messages.ts";
import { markEnded, WorkerState, type WorkerStart } from "./worker_group.ts";

const start = workerData as WorkerStart;
const words = new Int32Array(start.state);
Atomics.store(words, 0, WorkerState.RUNNING);
void run(start.job).finally(() => markEnded(words));

async function run(job: WorkerJob): Promise<void> {
  switch (job.role) {
    case "send-channel":
      return runSendChannel(job);
    case "receive-channel":
      return runReceiveChannel(job);
    case "sender":
      return runSender(job);
    case "receiver":
      return runReceiver(job);
    case "pool":
      return runPoolWorker(job);
    case "page-worker":
      return runPageWorker(job);
  }
}
