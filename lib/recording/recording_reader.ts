/**
 * Reads the description and the device state of a recording from an open file.
 *
 * @module
 */
import { readSync } from "node:fs";
import { SystemError } from "../errors.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { parseUuid } from "../wire/uuid.ts";
import {
  checksum,
  decodeRecordingHeader,
  HEADER_BYTES,
  parseMetadata,
  recordingError,
  type CheckedRange,
  type RecordingMetadata,
} from "./recording_layout.ts";

/** A recording but for its RAM. */
export interface RecordingParts {
  readonly metadata: RecordingMetadata;
  readonly state: GuestState;
}

/**
 * Reads and checks everything but the RAM.
 *
 * @throws {SystemError} when reading fails.
 * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when it is none, damaged or incomplete.
 */
export function readRecording(fd: number, fileBytes: number): RecordingParts {
  const header = readRange(fd, 0, Math.min(HEADER_BYTES, fileBytes));
  const range = decodeRecordingHeader(header, fileBytes);
  const metadata = parseMetadata(readChecked(fd, range, "metadata"), fileBytes);
  const { machine, pageBits, ramSectionId, switchoverStart, syncMode, validateUuid } = metadata;
  const state: GuestState = {
    machine,
    pageBits: pageBits ?? undefined,
    uuid: recordedUuid(metadata.uuid),
    validateUuid,
    ramSectionId,
    switchoverStart,
    syncMode,
    early: readChecked(fd, metadata.early, "early device state"),
    devices: readChecked(fd, metadata.devices, "device state"),
  };
  return { metadata, state };
}

function recordedUuid(text: string): Uint8Array {
  try {
    return parseUuid(text);
  } catch (error) {
    throw recordingError("its uuid is none", error);
  }
}

function readChecked(fd: number, range: CheckedRange, what: string): Uint8Array {
  const bytes = readRange(fd, range.offset, range.bytes);
  if (checksum(bytes) === range.crc32) return bytes;
  throw recordingError(`its ${what} does not have the checksum it must have`);
}

function readRange(fd: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const got = read(fd, bytes, done, offset + done);
    if (got === 0) throw recordingError("it became shorter while it was read");
    done += got;
  }
  return bytes;
}

function read(fd: number, bytes: Uint8Array, at: number, position: number): number {
  try {
    return readSync(fd, bytes, at, bytes.byteLength - at, position);
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? "unknown error";
    throw new SystemError(`Cannot read recording: ${errno}`, { errno, cause: error });
  }
}
