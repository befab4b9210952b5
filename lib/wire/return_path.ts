/**
 * The return path: what a destination writes on the reverse direction of the main connection (main
 * channel description, section 7). Every message has its line in one table here; the compiler then
 * asks each reader what it does about it.
 *
 * @module
 */
import { PeerError, StreamError, type PeerFailure } from "../errors.ts";
import { PEER_REASON_MS, RETURN_MESSAGE_BYTES_MAX, WAIT_TICK_MS } from "../limits.ts";
import type { ByteReader } from "./byte_reader.ts";
import type { ByteWriter } from "./byte_writer.ts";
import { ReturnMessage } from "./main_stream.ts";
import {
  decodeFailure,
  encodeFailure,
  FAILURE_BYTES_MAX,
  FAILURE_BYTES_MIN,
} from "./peer_failure.ts";

/** What the messages hold, by name. */
interface ReturnContents {
  /** The last word: 0 when all is in place. */
  readonly shut: number;
  /** The number of the PING. */
  readonly pong: number;
  /** The source may enter the final phase. */
  readonly switchoverAck: undefined;
  /** Why the destination fails; SHUT follows. Only sources of this library that said so get it. */
  readonly failure: PeerFailure;
}

/** Name of a message. */
type ReturnMessageName = keyof ReturnContents;

/** One message. */
type ReturnPathMessage = {
  readonly [Name in ReturnMessageName]: {
    readonly name: Name;
    readonly content: ReturnContents[Name];
  };
}[ReturnMessageName];

/** What a reader does about each message. */
type ReturnHandlers = {
  readonly [Name in ReturnMessageName]: (content: ReturnContents[Name]) => void;
};

interface MessageFormat<Content> {
  readonly type: number;
  readonly bytesMin: number;
  readonly bytesMax: number;
  readonly encode: (content: Content) => Uint8Array;
  readonly decode: (reader: ByteReader, bytes: number) => Content;
}

const word = {
  bytesMin: 4,
  bytesMax: 4,
  encode: (value: number): Uint8Array =>
    Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value),
  decode: (reader: ByteReader): number => reader.u32(),
};
const nothing = {
  bytesMin: 0,
  bytesMax: 0,
  encode: (): Uint8Array => new Uint8Array(0),
  decode: (): undefined => undefined,
};

const formats: { readonly [Name in ReturnMessageName]: MessageFormat<ReturnContents[Name]> } = {
  shut: { type: ReturnMessage.SHUT, ...word },
  pong: { type: ReturnMessage.PONG, ...word },
  switchoverAck: { type: ReturnMessage.SWITCHOVER_ACK, ...nothing },
  failure: {
    type: ReturnMessage.FAILURE,
    bytesMin: FAILURE_BYTES_MIN,
    bytesMax: FAILURE_BYTES_MAX,
    encode: encodeFailure,
    decode: decodeFailure,
  },
};

const NAMES = Object.keys(formats) as ReturnMessageName[];
const HEADER_BYTES = 4;

/** Writes one message and flushes. */
export function sendReturnMessage(out: ByteWriter, message: ReturnPathMessage): void {
  const { type, encode } = formats[message.name] as MessageFormat<unknown>;
  const content = encode(message.content);
  out.u16(type);
  out.u16(content.byteLength);
  out.bytes(content);
  out.flush();
}

/** Writes a PONG and flushes. */
export function sendPong(out: ByteWriter, value: number): void {
  sendReturnMessage(out, { name: "pong", content: value });
}

/** Writes the final SHUT, 0 for success, and flushes. */
export function sendShut(out: ByteWriter, value: number): void {
  sendReturnMessage(out, { name: "shut", content: value });
}

/** Writes the acknowledgement that a source with switchover-ack waits for, and flushes. */
export function sendSwitchoverAck(out: ByteWriter): void {
  sendReturnMessage(out, { name: "switchoverAck", content: undefined });
}

/**
 * Reads one message, waiting for it.
 *
 * @throws {StreamError} for an unknown type, a wrong length or malformed content.
 */
export function readReturnMessage(reader: ByteReader): ReturnPathMessage {
  reader.awaitNext(); // the destination may have a last step that takes long
  const type = reader.u16();
  const bytes = reader.u16();
  const name = NAMES.find((candidate) => formats[candidate].type === type);
  if (name !== undefined) return readContent(reader, name, bytes);
  throw returnPathError(`message ${type} has ${bytes} bytes, must be a known type`);
}

/**
 * Reads the reason of a failure whose header has been read, `bytes` being its length.
 *
 * @throws {StreamError} for a wrong length or malformed content.
 */
export function readFailure(reader: ByteReader, bytes: number): PeerFailure {
  return readContent(reader, "failure", bytes).content as PeerFailure;
}

function readContent(
  reader: ByteReader,
  name: ReturnMessageName,
  bytes: number,
): ReturnPathMessage {
  const { type, bytesMin, bytesMax, decode } = formats[name];
  if (bytes < bytesMin || bytes > bytesMax) {
    const most = bytesMin === bytesMax ? "" : ` to ${bytesMax}`;
    throw returnPathError(`message ${type} has ${bytes} bytes, must be ${bytesMin}${most}`);
  }
  return { name, content: decode(reader, bytes) } as ReturnPathMessage;
}

/** Takes what is here within `waitMs`; whether that is a message, or the end, which reading tells. */
function hasMessage(reader: ByteReader, waitMs: number): boolean {
  for (let wait = waitMs; ; wait = 0) {
    const { buffered } = reader;
    if (buffered >= HEADER_BYTES) {
      const [, , high, low] = reader.ahead(HEADER_BYTES)!;
      const bytes = high * 256 + low;
      // One that is too long is refused by its header.
      if (bytes > RETURN_MESSAGE_BYTES_MAX || buffered >= HEADER_BYTES + bytes) return true;
    }
    const came = reader.gather(wait);
    if (came !== "bytes") return came === "end";
  }
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
  readonly #handlers: ReturnHandlers;
  #action = "";
  /** Whether the destination may say that it has everything. */
  #allSent = false;
  #answered = false;
  #acknowledged = false;
  #ended = false;

  constructor(reader: ByteReader) {
    this.#reader = reader;
    this.#handlers = {
      pong: () => {
        if (this.#answered) throw returnPathError("a PONG came that no PING asked for");
        this.#answered = true;
      },
      switchoverAck: () => {
        if (this.#acknowledged) throw returnPathError("the switchover was acknowledged twice");
        this.#acknowledged = true;
      },
      shut: (value) => {
        if (value !== 0 || !this.#allSent) throw endedByPeer(this.#action, value);
        this.#ended = true;
      },
      failure: (failure) => {
        throw failedPeer(this.#action, failure);
      },
    };
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
   * Hears what the destination has said so far, without waiting for more, be it the rest of a message.
   * To be called before the last byte of the stream is sent: a SHUT that is here by then confirms
   * something else.
   *
   * @throws {PeerError} when the destination has ended the migration, for good or bad.
   */
  requireOpen(): void {
    while (hasMessage(this.#reader, 0)) this.#read("Cannot send");
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

  /**
   * Waits for what the destination has said about a session that has failed already.
   *
   * @param goesOn Called once a tick; false ends the wait.
   * @returns Nothing when it has said nothing of the kind within `PEER_REASON_MS`.
   */
  awaitReason(goesOn: () => boolean = () => true): PeerError | undefined {
    const deadline = performance.now() + PEER_REASON_MS;
    try {
      while (performance.now() < deadline && goesOn()) {
        if (hasMessage(this.#reader, WAIT_TICK_MS)) this.#read("Cannot send");
      }
    } catch (error) {
      if (error instanceof PeerError) return error;
    }
    return undefined; // the connection has ended, or says what is no message
  }

  #read(action: string, allSent = false): void {
    this.#action = action;
    this.#allSent = allSent;
    const { name, content } = readReturnMessage(this.#reader);
    (this.#handlers[name] as (content: unknown) => void)(content);
  }
}

/** Where to look for the reason of a peer that does not say it. */
export const USUAL_CAUSES =
  "the usual causes are another compression, number of channels, uuid, page size or memory size over there, " +
  "and its own output has the reason";

/** An error about a destination that has ended the migration with `value`, 0 being too early. */
export function endedByPeer(action: string, value: number): PeerError {
  return new PeerError(
    "ERR_MULTIFD_PEER",
    value === 0
      ? `${action}: the destination ended the migration before all of it was sent`
      : `${action}: the destination reported failure ${value}; ${USUAL_CAUSES}`,
  );
}

/** An error about a destination that has said why it fails. */
export function failedPeer(action: string, reason: PeerFailure): PeerError {
  const where = reason.channel === undefined ? "" : ` (channel ${reason.channel})`;
  return new PeerError(
    "ERR_MULTIFD_PEER",
    `${action}: the receiver refused: ${reason.message}${where}`,
    { reason },
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
