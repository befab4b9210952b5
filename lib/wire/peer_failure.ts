/**
 * Why a peer of this library has failed, as it is written into a message for the other side, and read
 * there (main channel description, section 7.1).
 *
 * @module
 */
import { StreamError, type PeerFailure } from "../errors.ts";
import {
  CHANNELS_MAX,
  FAILURE_CODE_CHARACTERS_MAX,
  FAILURE_MESSAGE_BYTES_MAX,
  FAILURE_PHASE_CHARACTERS_MAX,
} from "../limits.ts";
import type { ByteReader } from "./byte_reader.ts";

/** u8 length of code and phase, u16 channel, u16 length of the message. */
const FIXED_BYTES = 6;
const NO_CHANNEL = 0xffff;
const CODE = /^ERR_[A-Z0-9_]+$/;
const PHASE = /^[a-z]*$/;
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Most bytes of a failure. */
export const FAILURE_BYTES_MAX: number =
  FIXED_BYTES +
  FAILURE_CODE_CHARACTERS_MAX +
  FAILURE_PHASE_CHARACTERS_MAX +
  FAILURE_MESSAGE_BYTES_MAX;
/** Fewest bytes of one. */
export const FAILURE_BYTES_MIN: number = FIXED_BYTES;

/** What fits into a message, shortened where it has to be. */
export function encodeFailure({ code, message, phase = "", channel }: PeerFailure): Uint8Array {
  const named = code.length <= FAILURE_CODE_CHARACTERS_MAX && CODE.test(code);
  const ascii = (text: string): Buffer => Buffer.from(text, "latin1");
  const codeBytes = ascii(named ? code : "ERR_MULTIFD_INTERNAL");
  const known = phase.length <= FAILURE_PHASE_CHARACTERS_MAX && PHASE.test(phase);
  const phaseBytes = ascii(known ? phase : "");
  const target = new Uint8Array(FAILURE_MESSAGE_BYTES_MAX);
  const { written } = new TextEncoder().encodeInto(printable(message), target); // whole characters
  const place = channel ?? NO_CHANNEL;
  return Buffer.concat([
    Uint8Array.of(codeBytes.byteLength),
    codeBytes,
    Uint8Array.of(phaseBytes.byteLength),
    phaseBytes,
    Uint8Array.of(place >> 8, place & 0xff, written >> 8, written & 0xff),
    target.subarray(0, written),
  ]);
}

/**
 * Reads a failure of `bytes` bytes. The peer may be hostile: what it says is text for a person, without
 * characters that do something to a terminal.
 *
 * @throws {StreamError} for a part that is too long, has other characters, or ends elsewhere.
 */
export function decodeFailure(reader: ByteReader, bytes: number): PeerFailure {
  const data = Buffer.from(reader.bytes(bytes));
  let at = 0;
  const take = (count: number, most: number): Buffer => {
    if (count > most || at + count > bytes) throw malformed(`a part of ${count} bytes`);
    return data.subarray(at, (at += count));
  };
  const code = take(take(1, 1)[0], FAILURE_CODE_CHARACTERS_MAX).toString("latin1");
  if (!CODE.test(code)) throw malformed("its code is no name");
  const phase = take(take(1, 1)[0], FAILURE_PHASE_CHARACTERS_MAX).toString("latin1");
  if (!PHASE.test(phase)) throw malformed("its phase is no name");
  const channel = take(2, 2).readUInt16BE();
  if (channel !== NO_CHANNEL && channel >= CHANNELS_MAX) throw malformed(`channel ${channel}`);
  const length = take(2, 2).readUInt16BE();
  const message = printable(take(length, FAILURE_MESSAGE_BYTES_MAX).toString("utf8"));
  if (at !== bytes) throw malformed(`${bytes - at} bytes more`);
  return {
    code,
    message,
    phase: phase === "" ? undefined : phase,
    channel: channel === NO_CHANNEL ? undefined : channel,
  };
}

function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, "?");
}

function malformed(reason: string): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_RETURN_PATH",
    `Cannot read return path: the reason of a failure has ${reason}`,
  );
}
