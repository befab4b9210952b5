/**
 * The return path: what a destination writes on the reverse direction of the main connection (main
 * channel description, section 7).
 *
 * @module
 */
import { PeerError, StreamError } from "../errors.ts";
import { RETURN_MESSAGE_BYTES_MAX } from "../limits.ts";
import type { ByteReader } from "./byte_reader.ts";
import type { ByteWriter } from "./byte_writer.ts";
import { ReturnMessage } from "./main_stream.ts";

/** Lengths of the messages a source of precopy migrations can get. */
const LENGTHS: Readonly<Record<number, number>> = {
  [ReturnMessage.SHUT]: 4,
  [ReturnMessage.PONG]: 4,
  [ReturnMessage.SWITCHOVER_ACK]: 0,
};

/** Writes a PONG and flushes. */
export function sendPong(out: ByteWriter, value: number): void {
  sendMessage(out, ReturnMessage.PONG, value);
}

/** Writes the final SHUT, 0 for success, and flushes. */
export function sendShut(out: ByteWriter, value: number): void {
  sendMessage(out, ReturnMessage.SHUT, value);
}

/** Writes the acknowledgement that a source with switchover-ack waits for, and flushes. */
export function sendSwitchoverAck(out: ByteWriter): void {
  out.u16(ReturnMessage.SWITCHOVER_ACK);
  out.u16(0);
  out.flush();
}

/** One message. */
interface ReturnPathMessage {
  readonly type: number;
  /** The 32-bit value, 0 when the message has none. */
  readonly value: number;
}

/**
 * Reads one message.
 *
 * @throws {StreamError} for an unknown type or a wrong length.
 */
export function readReturnMessage(reader: ByteReader): ReturnPathMessage {
  reader.awaitNext(); // the destination may have a last step that takes long
  const type = reader.u16();
  const length = reader.u16();
  if (length > RETURN_MESSAGE_BYTES_MAX || LENGTHS[type] !== length) {
    throw returnPathError(
      `message ${type} has ${length} bytes, must be ${LENGTHS[type] ?? "a known type"}`,
    );
  }
  return { type, value: length === 4 ? reader.u32() : 0 };
}

/**
 * Checks that nothing follows the SHUT that has just been read. A destination that goes on speaking
 * after its last word, to take it back or otherwise, does not know what it says.
 *
 * @throws {StreamError} for a byte that is here; the end of the connection, however it comes, is none.
 */
export function requireNothingMore(reader: ByteReader): void {
  if (!hasMore(reader)) return;
  throw returnPathError("the destination goes on after it has ended the migration");
}

/** What a source hears from its destination. Used by one thread. */
export class ReturnPathReader {
  readonly #reader: ByteReader;
  #answered = false;
  #acknowledged = false;
  #ended = false;

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /**
   * Waits for the first PONG: then the destination has all its connections and reads the stream.
   *
   * @param wait Called before each wait for bytes; returns whether some are there.
   */
  awaitPong(wait: (reader: ByteReader) => boolean): void {
    while (!this.#answered) if (wait(this.#reader)) this.#read("Cannot set up");
  }

  /** Waits for the permission to enter the final phase (capability switchover-ack). */
  awaitSwitchoverAck(): void {
    while (!this.#acknowledged) this.#read("Cannot switch over");
  }

  /**
   * Reads what the destination has said so far, without waiting for more. To be called before the
   * last byte of the stream is sent: a SHUT that is here by then confirms something else.
   *
   * @throws {PeerError} when the destination has ended the migration, for good or bad.
   */
  requireOpen(): void {
    while (this.#reader.isReadable(0)) this.#read("Cannot send");
  }

  /**
   * Waits for SHUT, the proof that everything arrived; other messages are passed over.
   *
   * @throws {PeerError} when the destination reports a failure.
   */
  awaitShut(): void {
    while (!this.#ended) this.#read("Cannot complete", true);
  }

  /** See {@linkcode requireNothingMore}; after `awaitShut()`. */
  requireEnd(): void {
    requireNothingMore(this.#reader);
  }

  /** @param allSent Whether the destination may say that it has everything. */
  #read(action: string, allSent = false): void {
    const { type, value } = readReturnMessage(this.#reader);
    if (type === ReturnMessage.PONG) {
      if (this.#answered) throw returnPathError("a PONG came that no PING asked for");
      this.#answered = true;
    } else if (type === ReturnMessage.SWITCHOVER_ACK) {
      if (this.#acknowledged) throw returnPathError("the switchover was acknowledged twice");
      this.#acknowledged = true;
    } else {
      if (value !== 0 || !allSent) throw endedByPeer(action, value);
      this.#ended = true;
    }
  }
}

/** An error about a destination that has ended the migration with `value`, 0 being too early. */
export function endedByPeer(action: string, value: number): PeerError {
  return new PeerError(
    "ERR_MULTIFD_PEER",
    value === 0
      ? `${action}: the destination ended the migration before all of it was sent`
      : `${action}: the destination reported failure ${value}`,
  );
}

function hasMore(reader: ByteReader): boolean {
  try {
    return reader.isReadable(0) && !reader.atEnd();
  } catch {
    return false; // a reset is an end too, and comes after the last word
  }
}

function returnPathError(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_RETURN_PATH", `Cannot read return path: ${reason}`);
}

function sendMessage(out: ByteWriter, type: number, value: number): void {
  out.u16(type);
  out.u16(4);
  out.u32(value);
  out.flush();
}
