/**
 * The first 64 bytes of every channel, source to destination (wire format, section 2).
 *
 * @module
 */
import { HandshakeError } from "../errors.ts";
import { formatUuid, UUID_BYTES } from "./uuid.ts";

/*
 *  0  u32 magic   4  u32 version   8  uuid[16]   24  u8 channel id   25  reserved, zero
 */
const MAGIC_AT = 0;
const VERSION_AT = 4;
const UUID_AT = 8;
const ID_AT = UUID_AT + UUID_BYTES;
/** Bytes of a handshake. */
export const HANDSHAKE_BYTES = 64;
if (ID_AT !== 24) throw new RangeError("Channel id must be at byte 24 of the handshake");

/** First word of the handshake and of every packet. */
export const MULTIFD_MAGIC = 0x1122_3344;
/** Only version of handshake and packets. */
export const MULTIFD_VERSION = 1;

/** Writes the handshake of channel `id` to the start of `view`. */
export function encodeHandshake(view: DataView, uuid: Uint8Array, id: number): void {
  for (let at = 0; at < HANDSHAKE_BYTES; at++) view.setUint8(at, 0);
  view.setUint32(MAGIC_AT, MULTIFD_MAGIC);
  view.setUint32(VERSION_AT, MULTIFD_VERSION);
  uuid.forEach((byte, at) => view.setUint8(UUID_AT + at, byte));
  view.setUint8(ID_AT, id);
}

/**
 * Reads the handshake at the start of `view` and returns the channel id.
 *
 * @param channels Channels of this migration; QEMU lets an id equal to it pass, we do not.
 * @throws {HandshakeError} naming the first field that is wrong.
 */
export function decodeHandshake(view: DataView, uuid: Uint8Array, channels: number): number {
  const magic = view.getUint32(MAGIC_AT);
  if (magic !== MULTIFD_MAGIC) {
    throw error("MAGIC", `magic is 0x${magic.toString(16)}, must be 0x11223344`);
  }
  const version = view.getUint32(VERSION_AT);
  if (version !== MULTIFD_VERSION) throw error("VERSION", `version is ${version}, must be 1`);
  const theirs = new Uint8Array(view.buffer, view.byteOffset + UUID_AT, UUID_BYTES);
  if (!uuid.every((byte, at) => byte === theirs[at])) {
    throw error("UUID", `uuid is ${formatUuid(theirs)}, must be ${formatUuid(uuid)}`);
  }
  const id = view.getUint8(ID_AT);
  if (id >= channels) throw error("ID", `channel id is ${id}, must be below ${channels}`);
  return id;
}

/** The uuid in a handshake, as 16 raw bytes of its own. */
export function handshakeUuid(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + UUID_AT, UUID_BYTES).slice();
}

function error(field: string, reason: string): HandshakeError {
  return new HandshakeError(`ERR_MULTIFD_HANDSHAKE_${field}`, `Cannot accept channel: ${reason}`);
}
