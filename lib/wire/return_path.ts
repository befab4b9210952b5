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
export interface ReturnPathMessage {
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
    throw new StreamError(
      "ERR_MULTIFD_STREAM_RETURN_PATH",
      `Cannot read return path: message ${type} has ${length} bytes, must be ${LENGTHS[type] ?? "a known type"}`,
    );
  }
  return { type, value: length === 4 ? reader.u32() : 0 };
}

/** What a source hears from its destination. Used by one thread. */
export class ReturnPathReader {
  readonly #reader: ByteReader;
  #answered = false;
  #acknowledged = false;
  #ended: number | undefined;

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
   * Waits for SHUT, the proof that everything arrived; other messages are passed over.
   *
   * @throws {PeerError} when the destination reports a failure.
   */
  awaitShut(): void {
    while (this.#ended === undefined) this.#read("Cannot complete");
  }

  #read(action: string): void {
    const { type, value } = readReturnMessage(this.#reader);
    if (type === ReturnMessage.PONG) this.#answered = true;
    else if (type === ReturnMessage.SWITCHOVER_ACK) this.#acknowledged = true;
    else {
      this.#ended = value;
      if (value === 0 && action === "Cannot complete") return;
      throw new PeerError(
        "ERR_MULTIFD_PEER",
        value === 0
          ? `${action}: the destination ended the migration before all of it was sent`
          : `${action}: the destination reported failure ${value}`,
      );
    }
  }
}

function sendMessage(out: ByteWriter, type: number, value: number): void {
  out.u16(type);
  out.u16(4);
  out.u32(value);
  out.flush();
}
