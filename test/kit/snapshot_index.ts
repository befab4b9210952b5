/** Reading what a mapped-ram file says about itself on the test's own thread, thousands of times. */
import { streamStart } from "../../lib/snapshot/libvirt_header.ts";
import { readSnapshotIndex, type SnapshotIndex } from "../../lib/snapshot/snapshot_index.ts";
import { readSnapshotSource } from "../../lib/snapshot/snapshot_source.ts";
import { openRegularFile } from "../../lib/storage/opened_file.ts";

/** The index of the file at `path`, as the thread reads it that `openSnapshot()` starts. */
export function indexOf(path: string): SnapshotIndex {
  using file = openRegularFile(`Cannot open ${path}`, path);
  using source = readSnapshotSource(file);
  return readSnapshotIndex(source, streamStart(source, 0));
}
