/**
 * A source that does not end its connections when it has been told that its guest is in place: with
 * QEMU's capability x-colo it has stopped its guest, and waits for the word on which checkpoints begin.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import type { ByteWriter } from "./byte_writer.ts";
import { ColoMessage, sendColoMessage } from "./colo_message.ts";

/** Says that word, which lets the guest run; any other source does not read it any more. */
export function releaseSource(out: ByteWriter): void {
  sendColoMessage(out, ColoMessage.CHECKPOINT_READY);
}

/** Whether `error` is that of {@linkcode sourceStays}. */
export function isSourceStaying(error: unknown): error is StreamError {
  return error instanceof StreamError && error.code === "ERR_MULTIFD_STREAM_COLO";
}

/** An error about such a source. */
export function sourceStays(action: string): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_COLO",
    `${action}: the source goes on to checkpoints (capability x-colo), which must be off; ` +
      "it ends them by x-colo-lost-heartbeat",
  );
}
