/**
 * The file of a recording: a guest's RAM and everything else its stream carried, in a form from which
 * the stream can be made again.
 *
 * RAM lies in the file as in memory, page by page at fixed places with holes for zero pages, so that
 * it can be mapped and sent without being read into memory first. What is not RAM is kept as it was
 * in the stream. The description of all of it is JSON, so that other tools can use a recording
 * without this library.
 *
 * @module
 */
import { crc32 } from "../../ffi/runtime/runtime.ts";
import { MultifdError } from "../errors.ts";
import {
  BLOCKS_MAX,
  DEVICE_STATE_BYTES_MAX,
  MACHINE_NAME_BYTES_MAX,
  MAPPED_RAM_BYTES_MAX,
  METADATA_BYTES_MAX,
  PAGE_SIZES,
} from "../limits.ts";
import { blockIdFault } from "../wire/block_id.ts";
import type { SyncMode } from "../wire/sync_points.ts";

/*
 *   0  char[8] "MFDREC\r\n"     8  u32 version, 1      12  u32 state: 0 incomplete, 1 complete
 *  16  u64 metadata offset     24  u64 metadata bytes  32  u32 CRC-32 of the metadata
 *  then zero up to byte 65536; RAM blocks, each at a multiple of 65536; early sections; device
 *  sections; metadata. All integers are big-endian.
 */
const MAGIC = "MFDREC\r\n"; // a transfer that changes line ends changes this
const VERSION_AT = 8;
const STATE_AT = 12;
const METADATA_OFFSET_AT = 16;
const METADATA_BYTES_AT = 24;
const METADATA_CRC_AT = 32;
/** Bytes of the header that carry something. */
export const HEADER_BYTES = 36;
const VERSION = 1;
const COMPLETE = 1;
/** Alignment of RAM blocks, the largest page size; also where the first block lies. */
export const BLOCK_ALIGNMENT = 65_536;

/** A range of the file, in bytes. */
export interface RecordedRange {
  readonly offset: number;
  readonly bytes: number;
}

/** A range with a checksum. */
export interface CheckedRange extends RecordedRange {
  /** CRC-32 of the range. */
  readonly crc32: number;
}

/** A RAM block in a recording. */
export interface RecordedBlock extends RecordedRange {
  readonly idstr: string;
}

/** Everything about a recording that is not bulk data. */
export interface RecordingMetadata {
  /** Machine type, for example `pc-q35-10.0`. */
  readonly machine: string;
  /** Textual uuid, all zero when the guest has none. */
  readonly uuid: string;
  /** Whether the stream named the uuid for the destination to compare. */
  readonly validateUuid: boolean;
  /** Page size in bytes. */
  readonly pageSize: number;
  /** log2 of the page size if the stream named it. */
  readonly pageBits: number | null;
  readonly ramSectionId: number;
  /** Whether the source announced its final phase. */
  readonly switchoverStart: boolean;
  /** When the source synchronised its channels; absent in recordings that were made without. */
  readonly syncMode?: SyncMode | undefined;
  readonly blocks: readonly RecordedBlock[];
  /** Device sections in front of the RAM. */
  readonly early: CheckedRange;
  /** Device sections behind the RAM, end mark and VM description. */
  readonly devices: CheckedRange;
  /** When the recording was completed, ISO 8601. */
  readonly recordedAt: string;
  /** How the guest was received, for people. */
  readonly source: {
    readonly compression: string;
    readonly channels: number;
    readonly normalPages: number;
    readonly zeroPages: number;
    readonly wireBytes: number;
    readonly elapsedMs: number;
  };
}

/** The header of a recording. */
interface RecordingHeader {
  readonly complete: boolean;
  readonly metadata: CheckedRange;
}

/** The header as bytes. */
export function encodeRecordingHeader(header: RecordingHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(VERSION_AT, VERSION);
  view.setUint32(STATE_AT, header.complete ? COMPLETE : 0);
  view.setBigUint64(METADATA_OFFSET_AT, BigInt(header.metadata.offset));
  view.setBigUint64(METADATA_BYTES_AT, BigInt(header.metadata.bytes));
  view.setUint32(METADATA_CRC_AT, header.metadata.crc32);
  return bytes;
}

/** Whether the first bytes of a file are a recording's. */
export function isRecording(bytes: Uint8Array): boolean {
  return new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC.length)) === MAGIC;
}

/**
 * Reads the header of a file with `fileBytes` bytes.
 *
 * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when it is none or not complete.
 */
export function decodeRecordingHeader(bytes: Uint8Array, fileBytes: number): CheckedRange {
  if (bytes.byteLength < HEADER_BYTES || !isRecording(bytes)) {
    throw recordingError("it does not begin with a recording's header");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(VERSION_AT);
  if (version !== VERSION) throw recordingError(`its version is ${version}, must be ${VERSION}`);
  if (view.getUint32(STATE_AT) !== COMPLETE) {
    throw recordingError("it is incomplete: whoever recorded it did not come to the end");
  }
  const offset = Number(view.getBigUint64(METADATA_OFFSET_AT));
  const length = Number(view.getBigUint64(METADATA_BYTES_AT));
  const metadata = { offset, bytes: length, crc32: view.getUint32(METADATA_CRC_AT) };
  if (length > METADATA_BYTES_MAX || offset + length > fileBytes) {
    throw recordingError(
      `its metadata has ${length} bytes at ${offset}, must be at most ${METADATA_BYTES_MAX} of its ${fileBytes} bytes`,
    );
  }
  return metadata;
}

/**
 * Parses metadata and checks every part that is used later.
 *
 * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING`.
 */
export function parseMetadata(text: Uint8Array, fileBytes: number): RecordingMetadata {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (error) {
    throw recordingError("its metadata is not JSON", error);
  }
  const metadata = json as RecordingMetadata;
  const sound =
    typeof json === "object" &&
    json !== null &&
    typeof metadata.machine === "string" &&
    typeof metadata.uuid === "string" &&
    typeof metadata.validateUuid === "boolean" &&
    typeof metadata.switchoverStart === "boolean" &&
    [undefined, "round", "section"].includes(metadata.syncMode) &&
    typeof metadata.recordedAt === "string" &&
    isCount(metadata.pageSize) &&
    (metadata.pageBits === null || isCount(metadata.pageBits)) &&
    isCount(metadata.ramSectionId) &&
    isSource(metadata.source) &&
    Array.isArray(metadata.blocks);
  if (!sound) throw recordingError("its metadata lacks a field");
  const { blocks, early, devices, pageSize } = metadata;
  checkNumbers(metadata);
  if (blocks.length < 1 || blocks.length > BLOCKS_MAX) {
    throw recordingError(`it has ${blocks.length} RAM blocks, must be 1 to ${BLOCKS_MAX}`);
  }
  const names = new Set<string>();
  let end = 0;
  for (const block of blocks) {
    if (!isObject(block) || typeof block.idstr !== "string") {
      throw recordingError("its metadata describes a RAM block wrongly");
    }
    const name = JSON.stringify(block.idstr);
    const fault = blockIdFault(block.idstr);
    if (fault !== undefined) throw recordingError(`RAM block ${name}: its id ${fault}`);
    if (names.has(block.idstr)) throw recordingError(`RAM block ${name} comes twice, must be once`);
    names.add(block.idstr);
    checkRange(block, `RAM block ${name}`, fileBytes);
    if (block.bytes === 0 || block.bytes % pageSize !== 0) {
      throw recordingError(
        `RAM block ${name} has ${block.bytes} bytes, must be whole pages of ${pageSize}`,
      );
    }
    if (block.offset % BLOCK_ALIGNMENT !== 0 || block.offset < Math.max(end, BLOCK_ALIGNMENT)) {
      throw recordingError(
        `RAM block ${name} is at ${block.offset}, must be a multiple of ${BLOCK_ALIGNMENT} behind the block before it`,
      );
    }
    end = block.offset + block.bytes;
  }
  const ramBytes = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
  if (ramBytes > MAPPED_RAM_BYTES_MAX) {
    throw recordingError(
      `it has ${ramBytes} bytes of RAM, at most ${MAPPED_RAM_BYTES_MAX} are allowed`,
    );
  }
  for (const [name, range] of Object.entries({ early, devices })) {
    if (!isObject(range)) throw recordingError(`it does not say where its ${name} device state is`);
    checkRange(range, `${name} device state`, fileBytes);
    if (range.bytes > DEVICE_STATE_BYTES_MAX || !isCount(range.crc32)) {
      throw recordingError(`its ${name} device state has ${range.bytes} bytes, too many`);
    }
  }
  return metadata;
}

/** CRC-32 of bytes in a recording. */
export function checksum(bytes: Uint8Array): number {
  return crc32(bytes);
}

/** An error about a file that is no sound recording. */
export function recordingError(reason: string, cause?: unknown): MultifdError {
  return new MultifdError("ERR_MULTIFD_RECORDING", `Cannot read recording: ${reason}`, { cause });
}

/** Checks what goes into a stream again. */
function checkNumbers({ machine, pageSize, pageBits, ramSectionId }: RecordingMetadata): void {
  if (!PAGE_SIZES.includes(pageSize)) {
    throw recordingError(`its pages have ${pageSize} bytes, must be ${PAGE_SIZES.join(", ")}`);
  }
  if (pageBits !== null && 2 ** pageBits !== pageSize) {
    throw recordingError(`its pages have ${pageBits} bits and ${pageSize} bytes, must be equal`);
  }
  if (ramSectionId > 0xffff_ffff) {
    throw recordingError(`its RAM section has number ${ramSectionId}, must be at most 2^32 - 1`);
  }
  const machineBytes = new TextEncoder().encode(machine).byteLength;
  if (machineBytes > MACHINE_NAME_BYTES_MAX) {
    throw recordingError(
      `its machine name has ${machineBytes} bytes, at most ${MACHINE_NAME_BYTES_MAX} are allowed`,
    );
  }
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isSource(value: unknown): value is RecordingMetadata["source"] {
  if (!isObject(value)) return false;
  const source = value as Readonly<Record<string, unknown>>;
  return (
    typeof source["compression"] === "string" &&
    ["channels", "normalPages", "zeroPages", "wireBytes", "elapsedMs"].every((name) =>
      Number.isFinite(source[name]),
    )
  );
}

function checkRange(range: RecordedRange, what: string, fileBytes: number): void {
  if (!isCount(range.offset) || !isCount(range.bytes) || range.offset + range.bytes > fileBytes) {
    throw recordingError(
      `${what} has ${range.bytes} bytes at ${range.offset}, must be within its ${fileBytes} bytes`,
    );
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
