/**
 * The thread that reads what a snapshot says about itself for a caller on the event loop.
 *
 * @module
 */
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { giveAnswer } from "../thread/one_answer.ts";
import type { FileIndex, IndexJob } from "./index_messages.ts";
import { streamStart } from "./libvirt_header.ts";
import { readSnapshotIndex, shareIndex } from "./snapshot_index.ts";
import { readSnapshotSource } from "./snapshot_source.ts";

/** Reads what one file says. */
export function runIndexReader({ path, fd, offset, service }: IndexJob): Promise<void> {
  return giveAnswer(
    service,
    path,
    (): FileIndex => {
      using source = readSnapshotSource(new OpenedFile(path, duplicateDescriptor(path, fd)));
      const index = readSnapshotIndex(source, streamStart(source, offset));
      return { index: shareIndex(index), seekTable: source.seekTable };
    },
    ({ index }) => [index.early],
  );
}
