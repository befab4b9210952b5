/**
 * The threads that bring in the pages of a snapshot whose blocks are attached.
 *
 * @module
 */
import type { AttachedTask, AttachedWork } from "../paging/attached_messages.ts";
import { runAttachedPages } from "../paging/attached_worker.ts";
import type { PageReader } from "../paging/page_reader.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { PageSource, type SharedPages } from "./page_source.ts";

/** Where such a thread finds the pages. */
export interface SnapshotPages {
  readonly role: "snapshot-pages";
  readonly pages: SharedPages;
}

/** What such a thread is started with. */
export type SnapshotPagesJob = SnapshotPages & AttachedWork & AttachedTask;

/** Works on one attachment. */
export function runSnapshotPages(job: SnapshotPagesJob): void {
  runAttachedPages(job, (session) => openSnapshotPages(job, session));
}

/** The pages, for the calling thread. */
function openSnapshotPages({ pages }: SnapshotPages, session: Stoppable): PageReader {
  const source = new PageSource(pages, session);
  return {
    read(address, bytes, block, offset) {
      const { pageSize } = source.blocks[block];
      source.read(block, offset / pageSize, (offset + bytes) / pageSize, address);
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}
