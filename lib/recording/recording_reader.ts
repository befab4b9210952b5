/**
 * Reads the description and the device state of a recording from an open file.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import type { OpenedFile } from "../storage/opened_file.ts";
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
export function readRecording(file: OpenedFile): RecordingParts {
  const fileBytes = file.length();
  const header = readRange(file, 0, Math.min(HEADER_BYTES, fileBytes));
  const range = decodeRecordingHeader(header, fileBytes);
  const metadata = parseMetadata(readChecked(file, range, "metadata"), fileBytes);
  const { machine, pageBits, ramSectionId, switchoverStart, syncMode, validateUuid } = metadata;
  const state: GuestState = {
    machine,
    pageBits: pageBits ?? undefined,
    uuid: recordedUuid(metadata.uuid),
    validateUuid,
    ramSectionId,
    switchoverStart,
    syncMode,
    early: readChecked(file, metadata.early, "early device state"),
    devices: readChecked(file, metadata.devices, "device state"),
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

function readChecked(file: OpenedFile, range: CheckedRange, what: string): Uint8Array {
  const bytes = readRange(file, range.offset, range.bytes);
  if (checksum(bytes) === range.crc32) return bytes;
  throw recordingError(`its ${what} does not have the checksum it must have`);
}

function readRange(file: OpenedFile, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const window = new Arena(Math.max(1, Math.min(length, FILE_JOB_BYTES)));
  for (let done = 0; done < length;) {
    const part = Math.min(FILE_JOB_BYTES, length - done);
    if (file.read(window.address, part, offset + done) < part) {
      throw recordingError("it became shorter while it was read");
    }
    bytes.set(window.u8.subarray(0, part), done);
    done += part;
  }
  return bytes;
}
