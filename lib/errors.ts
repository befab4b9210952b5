/**
 * Every error a user of the library may catch, and the form in which an error crosses threads.
 * Structured cloning reduces a subclass to a plain `Error`, so a thread that fails writes the parts
 * down and the reader builds the class again from the code.
 *
 * @module
 */
import {
  MissingLibraryError,
  MultifdError,
  SystemError,
  type ErrorContext,
} from "../ffi/errors.ts";

export { MissingLibraryError, MultifdError, SystemError, type ErrorContext };

/** The 64-byte channel handshake is not acceptable; the code ends with the field at fault. */
export class HandshakeError extends MultifdError {}

/** A multifd packet breaks the protocol; the code ends with the field at fault. */
export class PacketError extends MultifdError {}

/** The main connection carries something else than a migration stream. */
export class StreamError extends MultifdError {}

/** A payload does not decode to the pages it announces, or pages cannot be encoded. */
export class CodecError extends MultifdError {}

/** A connection ended or was refused before its work was done. */
export class ChannelError extends MultifdError {}

/** A connection cannot be encrypted: credentials, handshake or records; the code says which. */
export class TlsError extends MultifdError {}

/** Something took longer than its configured limit. */
export class TimeoutError extends MultifdError {}

/** The user cancelled the transfer; `cause` is the signal's reason. */
export class CancelledError extends MultifdError {}

const CONTROL = /\s*[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+\s*/gu;

/** What a peer of this library says about its own failure; text of the peer, without control characters. */
export interface PeerFailure {
  /** Code of the error over there. */
  readonly code: string;
  /** Its message, perhaps shortened. */
  readonly message: string;
  /** What that side was doing. */
  readonly phase?: string | undefined;
  /** Zero-based multifd channel, if it concerns one. */
  readonly channel?: number | undefined;
}

/** The other end reported that it failed. */
export class PeerError extends MultifdError {
  /** Why, as far as the other end has said it: peers of this library do. */
  readonly reason: PeerFailure | undefined;

  constructor(
    code: string,
    message: string,
    context: ErrorContext & { readonly reason?: PeerFailure | undefined } = {},
  ) {
    super(code, message, context);
    this.reason = context.reason;
  }
}

/** What the peer announces is larger than this end allows. */
export class LimitError extends MultifdError {}

/** The state of a device cannot be saved, put in order or loaded; the code says why. */
export class DeviceError extends MultifdError {}

/** The memory that arrived is not the memory that was sent. */
export class DigestError extends MultifdError {}

const CLASSES: readonly [
  string,
  new (code: string, message: string, context?: ErrorContext) => MultifdError,
][] = [
  ["ERR_MULTIFD_HANDSHAKE", HandshakeError],
  ["ERR_MULTIFD_PACKET", PacketError],
  ["ERR_MULTIFD_STREAM", StreamError],
  ["ERR_MULTIFD_CODEC", CodecError],
  ["ERR_MULTIFD_CHANNEL", ChannelError],
  ["ERR_MULTIFD_TLS", TlsError],
  ["ERR_MULTIFD_TIMEOUT", TimeoutError],
  ["ERR_MULTIFD_CANCELLED", CancelledError],
  ["ERR_MULTIFD_PEER", PeerError],
  ["ERR_MULTIFD_LIMIT", LimitError],
  ["ERR_MULTIFD_DEVICE", DeviceError],
  ["ERR_MULTIFD_DIGEST", DigestError],
];

/** The parts of an error that survive the way between threads. */
export interface ErrorRecord {
  readonly code: string;
  readonly message: string;
  readonly side?: "source" | "destination";
  readonly channel?: number;
  readonly phase?: string;
  readonly errno?: string;
  readonly peer?: string;
  readonly reason?: PeerFailure;
}

/** Writes an error down, with `context` filling in what the error itself does not know. */
export function toErrorRecord(error: unknown, context: ErrorContext = {}): ErrorRecord {
  const known: Partial<MultifdError> = error instanceof MultifdError ? error : {};
  return Object.fromEntries(
    Object.entries({
      code: known.code ?? "ERR_MULTIFD_INTERNAL",
      message: error instanceof Error ? error.message : String(error),
      side: known.side ?? context.side,
      channel: known.channel ?? context.channel,
      phase: known.phase ?? context.phase,
      errno: known.errno ?? context.errno,
      peer: known.peer ?? context.peer,
      reason: error instanceof PeerError ? error.reason : undefined,
    }).filter(([, value]) => value !== undefined),
  ) as unknown as ErrorRecord;
}

/** Builds the error a record was made of; `cause` is there only in the thread it happened in. */
export function fromErrorRecord(record: ErrorRecord, cause?: unknown): MultifdError {
  const { code, message, ...where } = record;
  const context = { ...where, cause };
  if (code === "ERR_MULTIFD_LIBRARY") return new MissingLibraryError(message, context);
  if (code === "ERR_MULTIFD_SYSTEM") return new SystemError(message, context);
  const found = CLASSES.find(([prefix]) => code === prefix || code.startsWith(`${prefix}_`));
  const ErrorClass = found?.[1] ?? MultifdError;
  return new ErrorClass(code, message, context);
}

/** The error of a call on something that has been disposed. */
export function disposedError(what: string): MultifdError {
  return new MultifdError("ERR_MULTIFD_DISPOSED", `Cannot use ${what}: it has been disposed`);
}

/**
 * One line that says what failed and where: side, phase, channel, peer, errno. Parts that the
 * message already names are not repeated. A message may hold names that a peer chose: what would end
 * the line, or do something to a terminal, becomes a space.
 */
export function describeError(error: unknown): string {
  return describe(error).replaceAll(CONTROL, " ");
}

function describe(error: unknown): string {
  if (!(error instanceof MultifdError))
    return error instanceof Error ? error.message : String(error);
  const where = [
    error.side,
    error.phase === undefined ? undefined : `phase ${error.phase}`,
    error.channel === undefined ? undefined : `channel ${error.channel}`,
    error.peer === undefined ? undefined : `peer ${error.peer}`,
    error.errno,
  ].filter((part) => part !== undefined && !error.message.includes(part));
  return `${error.message} [${[error.code, ...where].join(", ")}]`;
}
