/**
 * What surrounds raw deflate: stored blocks, the zlib header and trailer (RFC 1950), and gzip members
 * with QATzip's extra field (RFC 1952; wire format, section 7.6). Written and read here once, so that
 * an engine need know nothing but raw deflate.
 *
 * @module
 */
import { codecError } from "./codec.ts";

/** Most bytes of one stored block. */
export const STORED_BYTES_MAX = 65_535;
/** Length of a stored block's header. */
export const STORED_HEADER_BYTES = 5;

/** Length of a zlib header. */
export const ZLIB_HEADER_BYTES = 2;
/** Length of the Adler-32 behind a zlib stream. */
export const ZLIB_TRAILER_BYTES = 4;
const DEFLATE_METHOD = 8;
const WINDOW_BITS_BASE = 8; // a zlib header holds the window's bits less this
const WINDOW_BITS_MAX = 15;
const PRESET_DICTIONARY = 0x20;

/** Bytes that `bytes` bytes take as stored blocks. */
export function storedBytes(bytes: number): number {
  return bytes + Math.ceil(bytes / STORED_BYTES_MAX) * STORED_HEADER_BYTES;
}

/** Writes the header of a stored block at byte `at`, which must be where a block can start. */
export function writeStoredHeader(
  output: Uint8Array,
  at: number,
  bytes: number,
  final: boolean,
): void {
  output[at] = final ? 1 : 0;
  output[at + 1] = bytes & 0xff;
  output[at + 2] = bytes >>> 8;
  output[at + 3] = ~bytes & 0xff;
  output[at + 4] = (~bytes >>> 8) & 0xff;
}

/** Writes a zlib header for a stream with the given window. */
export function writeZlibHeader(output: Uint8Array, at: number, windowBits: number): void {
  const first = ((windowBits - WINDOW_BITS_BASE) << 4) | DEFLATE_METHOD;
  output[at] = first;
  output[at + 1] = 31 - ((first << 8) % 31 || 31) || 0;
}

/** @throws {CodecError} when the two bytes at `at` are no zlib header that we can serve. */
export function checkZlibHeader(method: string, input: Uint8Array, at: number): void {
  const first = input[at];
  const second = input[at + 1];
  if ((first & 0xf) !== DEFLATE_METHOD || ((first << 8) | second) % 31 !== 0) {
    throw codecError(method, "it does not start with a zlib header");
  }
  if (first >>> 4 > WINDOW_BITS_MAX - WINDOW_BITS_BASE) {
    throw codecError(method, `its window has ${(first >>> 4) + WINDOW_BITS_BASE} bits, at most 15`);
  }
  if ((second & PRESET_DICTIONARY) !== 0) {
    throw codecError(method, "it asks for a preset dictionary, which nobody has");
  }
}

/*
 * A gzip member as QATzip writes it:
 *
 *  0 1f 8b 08 (deflate)   3 flags 04 (FEXTRA)   4 mtime   8 xfl   9 OS 255
 * 10 extra length 12 (u16, all little-endian)
 * 12 "QZ"  14 subfield length 8 (u16)  16 uncompressed bytes (u32)  20 deflate bytes (u32)
 * 24 raw deflate, then CRC-32 (u32) and uncompressed bytes (u32)
 */
const MEMBER_START = [0x1f, 0x8b, DEFLATE_METHOD] as const;
const FLAGS_AT = 3;
const FHCRC = 0x02;
const FEXTRA = 0x04;
const FNAME = 0x08;
const FCOMMENT = 0x10;
const OS_UNKNOWN = 255;
const FIXED_BYTES = 10;
const QZ_EXTRA_BYTES = 12;
const QZ_DATA_BYTES = 8;
/** Length of a member's header as {@linkcode writeMemberHeader} writes it. */
export const MEMBER_HEADER_BYTES = FIXED_BYTES + 2 + QZ_EXTRA_BYTES;
/** Length of a member's trailer. */
export const MEMBER_TRAILER_BYTES = 8;

/** Writes a member's header for `deflateBytes` bytes of raw deflate. */
export function writeMemberHeader(
  output: Uint8Array,
  at: number,
  contentBytes: number,
  deflateBytes: number,
): void {
  output.fill(0, at, at + MEMBER_HEADER_BYTES);
  output.set(MEMBER_START, at);
  output[at + FLAGS_AT] = FEXTRA;
  output[at + 9] = OS_UNKNOWN;
  output[at + 10] = QZ_EXTRA_BYTES;
  output[at + 12] = 0x51; // Q
  output[at + 13] = 0x5a; // Z
  output[at + 14] = QZ_DATA_BYTES;
  writeU32(output, at + 16, contentBytes);
  writeU32(output, at + 20, deflateBytes);
}

/** Writes a member's trailer. */
export function writeMemberTrailer(
  output: Uint8Array,
  at: number,
  crc: number,
  contentBytes: number,
): void {
  writeU32(output, at, crc);
  writeU32(output, at + 4, contentBytes);
}

/** What a member's header says; `null` sizes come from a member without QATzip's extra field. */
interface MemberHeader {
  /** Where the raw deflate starts. */
  readonly deflateAt: number;
  readonly contentBytes: number | null;
  readonly deflateBytes: number | null;
}

/**
 * Reads the header of the member at `at`; any gzip member is understood.
 *
 * @throws {CodecError} when there is none, or it is not complete before `end`.
 */
export function readMemberHeader(
  method: string,
  input: Uint8Array,
  at: number,
  end: number,
): MemberHeader {
  const need = (to: number): number => {
    if (to > end) throw codecError(method, "it ends inside a gzip header");
    return to;
  };
  let position = need(at + FIXED_BYTES);
  if (MEMBER_START.some((byte, index) => input[at + index] !== byte)) {
    throw codecError(method, "it holds something else than gzip members");
  }
  const flags = input[at + FLAGS_AT];
  let sizes: Pick<MemberHeader, "contentBytes" | "deflateBytes"> = {
    contentBytes: null,
    deflateBytes: null,
  };
  if ((flags & FEXTRA) !== 0) {
    position = need(position + 2);
    const extraEnd = need(position + readU16(input, position - 2));
    while (position + 4 <= extraEnd) {
      const length = readU16(input, position + 2);
      const data = position + 4;
      if (input[position] === 0x51 && input[position + 1] === 0x5a && length === QZ_DATA_BYTES) {
        if (data + length > extraEnd) throw codecError(method, "its QZ field is cut off");
        sizes = { contentBytes: readU32(input, data), deflateBytes: readU32(input, data + 4) };
      }
      position = data + length;
    }
    position = extraEnd;
  }
  for (const flag of [FNAME, FCOMMENT]) {
    if ((flags & flag) === 0) continue;
    while (input[need(position + 1) - 1] !== 0) position++;
    position++;
  }
  if ((flags & FHCRC) !== 0) position = need(position + 2);
  return { deflateAt: position, ...sizes };
}

/** Little-endian, as gzip has it. */
export function readU32(input: Uint8Array, at: number): number {
  return (readU16(input, at) | (readU16(input, at + 2) << 16)) >>> 0;
}

function readU16(input: Uint8Array, at: number): number {
  return input[at] | (input[at + 1] << 8);
}

function writeU32(output: Uint8Array, at: number, value: number): void {
  for (let byte = 0; byte < 4; byte++) output[at + byte] = (value >>> (8 * byte)) & 0xff;
}
