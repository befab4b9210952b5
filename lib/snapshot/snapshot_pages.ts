/**
 * The threads that bring in the pages of a snapshot.
 *
 * @module
 */
import type { PageReader } from "../paging/page_reader.ts";
import { runPages, type PagesTask } from "../paging/pages_worker.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { PageSource, type SharedPages } from "./page_source.ts";
import { snapshotSource } from "./snapshot_source.ts";

/** Where such a thread finds the pages. */
export interface SnapshotPages {
  readonly role: "snapshot-pages";
  readonly pages: SharedPages;
}

/** What such a thread is started with. */
export type SnapshotPagesJob = SnapshotPages & PagesTask;

/** Works on one attachment, or serves other processes. */
export function runSnapshotPages(job: SnapshotPagesJob): Promise<void> {
  const isForSingle = job.task === "serve" || job.task === "listen";
  return runPages(job, (session) =>
    isForSingle ? openSinglePages(job, session) : openLongRuns(job),
  );
}

/** For a thread that reads all pages in order: nobody needs a frame again that it has read. */
function openLongRuns({ pages }: SnapshotPages): PageReader {
  const { path, fd, seekTable, blocks } = pages;
  const source = snapshotSource(new OpenedFile(path, duplicateDescriptor(path, fd)), seekTable);
  return {
    read: (address, bytes, block, offset) =>
      source.read(address, bytes, blocks[block].pagesOffset + offset),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** For a thread that reads single pages; frames are shared by all that do. */
function openSinglePages({ pages }: SnapshotPages, session: Stoppable): PageReader {
  const source = new PageSource(pages, session);
  return {
    read(address, bytes, block, offset) {
      const { pageSize } = source.blocks[block];
      source.read(block, offset / pageSize, (offset + bytes) / pageSize, address);
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}
