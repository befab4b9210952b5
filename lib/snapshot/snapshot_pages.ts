/**
 * The threads that bring in the pages of a snapshot.
 *
 * @module
 */
import type { PageReader } from "../paging/page_reader.ts";
import { runPages, type PagesTask } from "../paging/pages_worker.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { PageSource, type SharedPages } from "./page_source.ts";

/** Where such a thread finds the pages. */
export interface SnapshotPages {
  readonly role: "snapshot-pages";
  readonly pages: SharedPages;
}

/** What such a thread is started with. */
export type SnapshotPagesJob = SnapshotPages & PagesTask;

/** Works on one attachment, or serves other processes. */
export function runSnapshotPages(job: SnapshotPagesJob): Promise<void> {
  return runPages(job, (session) => openSnapshotPages(job, session));
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
