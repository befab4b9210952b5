/**
 * What the thread that reads a file's index is started with and what it gives.
 *
 * @module
 */
import type { ServiceJob } from "../thread/service.ts";
import type { SharedSnapshotIndex } from "./snapshot_index.ts";
import type { SharedSeekTable } from "./seek_table.ts";

/** A thread that reads what a snapshot says about itself and gives a {@linkcode FileIndex}. */
export interface IndexJob extends ServiceJob {
  readonly role: "index-reader";
  /** Name of the file, for messages. */
  readonly path: string;
  /** Descriptor of the file, open until the thread has ended. */
  readonly fd: number;
  /** Where the stream starts in the file. */
  readonly offset: number;
}

/** What it takes to read any page of a file. */
export interface FileIndex {
  readonly index: SharedSnapshotIndex;
  /** Where the frames are of a file that is stored compressed. */
  readonly seekTable: SharedSeekTable | undefined;
}
