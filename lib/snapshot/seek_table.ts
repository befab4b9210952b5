/**
 * The seek table of compressed snapshots. It is the one of zstd's own "seekable format": independent
 * frames one after the other and, in a skippable frame at the end, their lengths. So every zstd tool
 * can decompress such a file, and gets the snapshot byte for byte.
 *
 * @module
 */
import { SEEKABLE_FRAME_BYTES_MAX, SEEKABLE_FRAMES_MAX } from "../limits.ts";
import { fileError } from "./mapped_ram_format.ts";

/*
 * Seek table, little-endian:
 *   0  u32 0x184d2a5e, a skippable frame      4  u32 bytes that follow
 *   8  for each frame: u32 bytes in the file, u32 bytes of content, [u32 low half of XXH64]
 *   footer: u32 number of frames, u8 flags (bit 7: entries have checksums), u32 0x8f92eab1
 */
const SKIPPABLE_MAGIC = 0x184d_2a5e;
const SKIPPABLE_HEADER_BYTES = 8;
const FOOTER_MAGIC = 0x8f92_eab1;
/** Length of the footer in bytes. */
export const FOOTER_BYTES = 9;
const HAS_CHECKSUMS = 0x80;
/** A skippable frame without content, the shortest there is. */
const FRAME_BYTES_MIN = 8;
const ENTRIES_AT_ONCE = 65_536;
const RESERVED_FLAGS = 0x7c; // bits 0 and 1 have no meaning and may be anything

/** One frame of a compressed file. */
export interface SeekableFrame {
  /** Where the frame lies in the file. */
  readonly fileOffset: number;
  readonly fileBytes: number;
  /** Which bytes of the content it holds. */
  readonly offset: number;
  readonly bytes: number;
  /** Low half of the content's XXH64, if the table has checksums. */
  readonly checksum: number | undefined;
}

/** What the footer says, as far as it decides where the table begins. */
interface SeekTableFooter {
  readonly frames: number;
  readonly hasChecksums: boolean;
  /** Length of the whole table, its header and this footer included. */
  readonly tableBytes: number;
}

/** Reads the last `FOOTER_BYTES` bytes of a file of `fileBytes` bytes. */
export function decodeFooter(bytes: Uint8Array, fileBytes: number): SeekTableFooter {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames = view.getUint32(0, true);
  const flags = view.getUint8(4);
  if (view.getUint32(5, true) !== FOOTER_MAGIC) {
    throw fileError("SEEK_TABLE", "it is compressed without a seek table at its end");
  }
  if ((flags & RESERVED_FLAGS) !== 0 || frames > SEEKABLE_FRAMES_MAX) {
    throw fileError("SEEK_TABLE", `its seek table has flags ${flags} and ${frames} frames`);
  }
  const hasChecksums = (flags & HAS_CHECKSUMS) !== 0;
  const entryBytes = hasChecksums ? 12 : 8;
  const tableBytes = SKIPPABLE_HEADER_BYTES + frames * entryBytes + FOOTER_BYTES;
  if (tableBytes > fileBytes) {
    throw fileError("SEEK_TABLE", `its seek table has ${tableBytes} bytes, the file ${fileBytes}`);
  }
  return { frames, hasChecksums, tableBytes };
}

/** A seek table in the form that can be posted to another thread. */
export interface SharedSeekTable {
  /** Where frame n begins in the content, and where the last one ends. */
  readonly offsets: SharedArrayBuffer;
  /** The same in the file. */
  readonly fileOffsets: SharedArrayBuffer;
  readonly checksums: SharedArrayBuffer | undefined;
  readonly frameBytesMax: number;
  readonly frameFileBytesMax: number;
}

/** Reads `bytes` bytes of a file from `offset` on; what it returns is used until the next call. */
type ReadFile = (offset: number, bytes: number) => Uint8Array;

/** Where the content of a compressed file lies. */
export class SeekTable {
  /** Length of the content in bytes. */
  readonly bytes: number;
  readonly #shared: SharedSeekTable;
  readonly #offsets: Float64Array;
  readonly #fileOffsets: Float64Array;
  readonly #checksums: Uint32Array | undefined;

  constructor(shared: SharedSeekTable) {
    const { offsets, fileOffsets, checksums } = shared;
    this.#shared = shared;
    this.#offsets = new Float64Array(offsets);
    this.#fileOffsets = new Float64Array(fileOffsets);
    this.#checksums = checksums === undefined ? undefined : new Uint32Array(checksums);
    this.bytes = this.#offsets[this.#offsets.length - 1];
  }

  /**
   * Reads the table of a file piece by piece, and stops at the first entry that no frame can have: a
   * table of zeros takes no room in a sparse file and must take none here.
   *
   * @param fileBytes Length of the file, which frames and table must fill exactly.
   * @throws {StreamError} when lengths do not add up or a frame is longer than is allowed.
   */
  static read(read: ReadFile, fileBytes: number): SeekTable {
    if (fileBytes < FOOTER_BYTES) throw fileError("TRUNCATED", "it is shorter than a seek table");
    const footer = decodeFooter(read(fileBytes - FOOTER_BYTES, FOOTER_BYTES), fileBytes);
    const { frames, hasChecksums, tableBytes } = footer;
    const start = fileBytes - tableBytes;
    checkHeader(read(start, SKIPPABLE_HEADER_BYTES), tableBytes);
    // Memory that is not written yet takes no room either.
    const shared = {
      offsets: new SharedArrayBuffer((frames + 1) * 8),
      fileOffsets: new SharedArrayBuffer((frames + 1) * 8),
      checksums: hasChecksums ? new SharedArrayBuffer(frames * 4) : undefined,
    };
    const [offsets, fileOffsets] = [shared.offsets, shared.fileOffsets].map(
      (buffer) => new Float64Array(buffer),
    );
    const checksums =
      shared.checksums === undefined ? undefined : new Uint32Array(shared.checksums);
    let frameBytesMax = 0;
    let frameFileBytesMax = 0;
    const entryBytes = hasChecksums ? 12 : 8;
    for (let first = 0; first < frames; first += ENTRIES_AT_ONCE) {
      const end = Math.min(frames, first + ENTRIES_AT_ONCE);
      const at = start + SKIPPABLE_HEADER_BYTES + first * entryBytes;
      const part = read(at, (end - first) * entryBytes);
      const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
      for (let frame = first; frame < end; frame++) {
        const entry = (frame - first) * entryBytes;
        const inFile = view.getUint32(entry, true);
        const content = view.getUint32(entry + 4, true);
        checkFrame(frame, inFile, content);
        fileOffsets[frame + 1] = fileOffsets[frame] + inFile;
        offsets[frame + 1] = offsets[frame] + content;
        if (checksums !== undefined) checksums[frame] = view.getUint32(entry + 8, true);
        frameBytesMax = Math.max(frameBytesMax, content);
        frameFileBytesMax = Math.max(frameFileBytesMax, inFile);
      }
    }
    const end = fileOffsets[frames] + tableBytes;
    if (end !== fileBytes) {
      throw fileError(
        "SEEK_TABLE",
        `its frames and seek table have ${end} bytes, not ${fileBytes}`,
      );
    }
    return new SeekTable({ ...shared, frameBytesMax, frameFileBytesMax });
  }

  /** Length of the longest frame's content. */
  get frameBytesMax(): number {
    return this.#shared.frameBytesMax;
  }

  /** Length of the longest frame in the file. */
  get frameFileBytesMax(): number {
    return this.#shared.frameFileBytesMax;
  }

  /** The form to post to another thread; both may be used at the same time. */
  share(): SharedSeekTable {
    return this.#shared;
  }

  /** Number of the frame that holds byte `offset` of the content, which must be inside it. */
  indexAt(offset: number): number {
    let low = 0;
    let high = this.#offsets.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#offsets[middle] <= offset) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The frame of that number. */
  frame(index: number): SeekableFrame {
    const [offset, fileOffset] = [this.#offsets[index], this.#fileOffsets[index]];
    return {
      fileOffset,
      fileBytes: this.#fileOffsets[index + 1] - fileOffset,
      offset,
      bytes: this.#offsets[index + 1] - offset,
      checksum: this.#checksums?.[index],
    };
  }
}

function checkHeader(header: Uint8Array, tableBytes: number): void {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const magic = view.getUint32(0, true);
  const bytesAfter = view.getUint32(4, true);
  if (magic !== SKIPPABLE_MAGIC || bytesAfter !== tableBytes - SKIPPABLE_HEADER_BYTES) {
    throw fileError("SEEK_TABLE", `its seek table begins with ${magic} and ${bytesAfter}`);
  }
}

function checkFrame(frame: number, inFile: number, content: number): void {
  const fileBytesMax = 2 * SEEKABLE_FRAME_BYTES_MAX;
  if (content > SEEKABLE_FRAME_BYTES_MAX || inFile > fileBytesMax || inFile < FRAME_BYTES_MIN) {
    throw fileError(
      "SEEK_TABLE",
      `frame ${frame} has ${inFile} bytes for ${content}, must have ${FRAME_BYTES_MIN} to ${fileBytesMax} for at most ${SEEKABLE_FRAME_BYTES_MAX}`,
    );
  }
}

/** Collects the frames of a new file. */
export class SeekTableWriter {
  readonly #entries: number[] = [];

  /** Notes the next frame. */
  add(fileBytes: number, bytes: number, checksum: number): void {
    if (this.#entries.length / 3 >= SEEKABLE_FRAMES_MAX) {
      throw fileError("SEEK_TABLE", `more than ${SEEKABLE_FRAMES_MAX} frames, the most possible`);
    }
    this.#entries.push(fileBytes, bytes, checksum);
  }

  /** The table over all frames, to be written behind them. */
  encode(): Uint8Array {
    const entries = this.#entries;
    const table = new Uint8Array(SKIPPABLE_HEADER_BYTES + entries.length * 4 + FOOTER_BYTES);
    const view = new DataView(table.buffer);
    view.setUint32(0, SKIPPABLE_MAGIC, true);
    view.setUint32(4, table.byteLength - SKIPPABLE_HEADER_BYTES, true);
    for (const [index, value] of entries.entries()) {
      view.setUint32(SKIPPABLE_HEADER_BYTES + index * 4, value, true);
    }
    const footer = table.byteLength - FOOTER_BYTES;
    view.setUint32(footer, entries.length / 3, true);
    view.setUint8(footer + 4, HAS_CHECKSUMS);
    view.setUint32(footer + 5, FOOTER_MAGIC, true);
    return table;
  }
}
