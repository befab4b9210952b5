/**
 * What the thread that reads a recording is started with.
 *
 * @module
 */

/** A thread that reads all of a recording but its RAM and posts `RecordingParts`. */
export interface RecordingJob {
  readonly role: "recording-reader";
  /** Name of the file, for messages. */
  readonly path: string;
  /** Descriptor of the file, open until the thread has ended. */
  readonly fd: number;
}
