/**
 * What the thread of a file channel is started with, and what it and its caller say.
 *
 * @module
 */
import type { SharedSeekTable } from "./seek_table.ts";
import type { SharedFileBlock } from "./file_round.ts";

/** A thread that writes pages to a snapshot or reads them from it. */
export interface FileChannelJob {
  readonly role: "file-channel";
  readonly channel: number;
  readonly mode: "read" | "write";
  /** Name of the file, for messages. */
  readonly path: string;
  /** Descriptor of the file, open until the thread has ended. */
  readonly fd: number;
  /** Where the frames are of a file that is stored compressed; such files are only read. */
  readonly seekTable: SharedSeekTable | undefined;
  /** Whether to ask for O_DIRECT. */
  readonly direct: boolean;
  readonly detectZeroPages: boolean;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly round: SharedArrayBuffer;
  readonly blocks: readonly SharedFileBlock[];
}

/** One pass over all pending pages, or the end. */
export interface FileChannelCommand {
  readonly kind: "pass" | "close";
}

/** Sent once the file is open and after each pass; failures are in the session control. */
export interface FileChannelReply {
  readonly ok: boolean;
}
