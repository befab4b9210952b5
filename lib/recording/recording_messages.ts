/**
 * What the thread that reads a recording is started with.
 *
 * @module
 */
import type { ServiceJob } from "../thread/service.ts";

/** A thread that reads all of a recording but its RAM and gives `RecordingParts`. */
export interface RecordingJob extends ServiceJob {
  readonly role: "recording-reader";
  /** Name of the file, for messages. */
  readonly path: string;
  /** Descriptor of the file, open until the thread has ended. */
  readonly fd: number;
}
