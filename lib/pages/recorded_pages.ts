/**
 * The pages of a recording for threads that serve them one by one.
 *
 * @module
 */
import type { Recording } from "../recording/recording.ts";
import { sharePages, type PageBlock, type SharedPages } from "../snapshot/page_source.ts";

/**
 * Puts the pages of a recording together, which must stay open until the last thread has taken them up.
 *
 * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when its file has become shorter.
 */
export function shareRecordedPages(recording: Recording): SharedPages {
  const { blocks, pageSize } = recording.metadata;
  const present = recording.presentPages();
  return sharePages(
    recording.file,
    undefined,
    blocks.map(({ idstr, bytes, offset }, index): PageBlock => ({
      idstr,
      bytes,
      pageSize,
      pages: bytes / pageSize,
      pagesOffset: offset,
      present: present[index],
    })),
  );
}
