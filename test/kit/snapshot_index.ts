/** Reading what a mapped-ram file says about itself on the test's own thread, thousands of times. */
import { streamStart } from "../../lib/snapshot/libvirt_header.ts";
import { readMappedRamIndex, type MappedRamIndex } from "../../lib/snapshot/mapped_ram_index.ts";
import { readSnapshotSource } from "../../lib/snapshot/snapshot_source.ts";
import { openRegularFile } from "../../lib/storage/opened_file.ts";

/** The index of the file at `path`, as the thread reads it that `openMappedRamFile()` starts. */
export function indexOf(path: string): MappedRamIndex {
  using file = openRegularFile(`Cannot open ${path}`, path);
  using source = readSnapshotSource(file);
  return readMappedRamIndex(source, streamStart(source, 0));
}
