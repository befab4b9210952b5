/**
 * The threads that bring in pages, whatever for.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";
import type { AttachedTask, AttachedWork } from "./attached_messages.ts";
import { runAttachedPages } from "./attached_worker.ts";
import { runFaultServer } from "./fault_server.ts";
import type { FaultServerWork } from "./fault_server_messages.ts";
import type { PageReader } from "./page_reader.ts";

/** What one of them does. */
export type PagesTask = (AttachedWork & AttachedTask) | FaultServerWork;

/**
 * Does it.
 *
 * @param openReader Gives the pages; called once.
 */
export async function runPages(
  task: PagesTask,
  openReader: (session: Stoppable) => PageReader,
): Promise<void> {
  if (task.task === "listen") await runFaultServer(task, openReader);
  else runAttachedPages(task, openReader);
}
