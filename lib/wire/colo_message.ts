/**
 * The words that primary and secondary exchange on the main connection after the migration (main
 * channel description, section 11).
 *
 * @module
 */
import { ChannelError, StreamError } from "../errors.ts";
import type { ByteReader } from "./byte_reader.ts";
import type { ByteWriter } from "./byte_writer.ts";
import { ReturnMessage } from "./main_stream.ts";
import { failedPeer, readFailure } from "./return_path.ts";

/** One word each; P is the primary, S the secondary. */
export const ColoMessage = {
  /** S: the copy is complete and checkpoints may begin. */
  CHECKPOINT_READY: 0,
  /** P: stop. */
  CHECKPOINT_REQUEST: 1,
  /** S: stopped. */
  CHECKPOINT_REPLY: 2,
  /** P: stopped as well; the RAM follows. */
  VMSTATE_SEND: 3,
  /** P: the RAM is sent; a u64 length and the device state follow. */
  VMSTATE_SIZE: 4,
  /** S: the checkpoint is here, all of it. */
  VMSTATE_RECEIVED: 5,
  /** S: the checkpoint is in place; both go on. */
  VMSTATE_LOADED: 6,
} as const;

/** Writes one word and flushes. */
export function sendColoMessage(out: ByteWriter, message: number): void {
  out.u32(message);
  out.flush();
}

/**
 * Waits for one word; before it the peer may be silent for as long as the idle limit.
 *
 * @param action What cannot be done without it, for messages.
 * @returns false when the peer ended the connection in place of it.
 * @throws {PeerError} when the peer says why it fails, {StreamError} for any other word.
 */
export function awaitColoMessage(reader: ByteReader, message: number, action: string): boolean {
  if (reader.atEnd()) return false;
  const word = reader.u32();
  if (word >>> 16 === ReturnMessage.FAILURE) {
    throw failedPeer(`Cannot ${action}`, readFailure(reader, word & 0xffff));
  }
  if (word !== message) {
    throw new StreamError(
      "ERR_MULTIFD_STREAM_COLO",
      `Cannot ${action}: the peer says ${word}, must say ${message}`,
    );
  }
  return true;
}

/** Waits for one word that must come. Takes and throws what {@linkcode awaitColoMessage} does. */
export function expectColoMessage(reader: ByteReader, message: number, action: string): void {
  if (awaitColoMessage(reader, message, action)) return;
  throw new ChannelError(
    "ERR_MULTIFD_CHANNEL_ENDED",
    `Cannot ${action}: the peer ended the connection in place of message ${message}`,
  );
}
