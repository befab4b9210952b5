/**
 * The threads that bring in the pages of a recording, and which of its pages have content: those that
 * are no hole of its file.
 *
 * @module
 */
import { Errno, lseek } from "../../ffi/libc.ts";
import { SeekFrom } from "../../ffi/linux.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { runPages, type PagesTask } from "../paging/pages_worker.ts";
import { duplicateDescriptor, imageError, OpenedFile } from "../storage/opened_file.ts";
import type { RecordedBlock } from "./recording_layout.ts";

/** Where such a thread finds the pages. */
export interface RecordingPages {
  readonly role: "recording-pages";
  readonly path: string;
  /** Descriptor of the file, open until the thread has ended. */
  readonly fd: number;
  /** Where each block lies in the file. */
  readonly offsets: readonly number[];
}

/** What such a thread is started with. */
export type RecordingPagesJob = RecordingPages & PagesTask;

/** Works on one attachment, or serves other processes. */
export function runRecordingPages(job: RecordingPagesJob): Promise<void> {
  return runPages(job, () => {
    const { path, fd, offsets } = job;
    const file = new OpenedFile(path, duplicateDescriptor(path, fd));
    return {
      read(address, bytes, block, offset) {
        const at = offsets[block] + offset;
        const got = file.read(address, bytes, at);
        if (got === bytes) return;
        const end = at + got;
        throw imageError(
          `Cannot read recording: it ends at byte ${end} now, must keep its length while in use`,
        );
      },
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  });
}

/** Most holes that are looked for in a block; what lies behind them counts as content. */
const HOLES_MAX = 65_536;

/** The pages of a block that are not in a hole of the file. */
export function pagesWithContent(
  { fd }: OpenedFile,
  { offset, bytes }: RecordedBlock,
  pageSize: number,
): PageBitmap {
  const present = new PageBitmap(bytes / pageSize);
  const end = offset + bytes;
  for (let at = offset, holes = 0; at < end; holes++) {
    const data = lseek(fd, at, SeekFrom.DATA);
    if (data === -Errno.ENXIO || data >= end) break;
    // Else the file system knows of no holes, or of too many.
    const isKnown = data >= 0 && holes < HOLES_MAX;
    const hole = isKnown ? lseek(fd, data, SeekFrom.HOLE) : end;
    const stop = hole < 0 ? end : Math.min(hole, end);
    const first = Math.floor(((isKnown ? data : at) - offset) / pageSize);
    present.setRange(first, Math.ceil((stop - offset) / pageSize));
    at = stop;
  }
  return present;
}
