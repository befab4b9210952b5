/**
 * The life of a thread of a page crew.
 *
 * @module
 */
import { BlockTable, type BlockTableHandle } from "./block_table.ts";
import { PageTask } from "./page_task.ts";
import { SessionControl } from "../sync/session_control.ts";
import { threadPort } from "../thread/thread_port.ts";

/** A thread of a page crew. */
export interface PageWorkerJob {
  readonly role: "page-worker";
  readonly control: SharedArrayBuffer;
  readonly blocks: BlockTableHandle;
  readonly task: SharedArrayBuffer;
}

/** Works on tasks until the crew is disposed. */
export function runPageWorker(job: PageWorkerJob): void {
  const task = new PageTask(new BlockTable(job.blocks), job.task);
  const port = threadPort();
  task.serve(new SessionControl(job.control), () => port.postMessage("done"));
}
