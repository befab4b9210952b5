/**
 * The life of a thread of a page crew.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { BlockTable } from "../memory/block_table.ts";
import { PageTask } from "../memory/page_task.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { PageWorkerJob } from "./messages.ts";

/** Works on tasks until the crew is disposed. */
export function runPageWorker(job: PageWorkerJob): void {
  const task = new PageTask(new BlockTable(job.blocks), job.task);
  task.serve(new SessionControl(job.control), () => parentPort!.postMessage("done"));
}
