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
export interface SeekTableFooter {
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

/** Where the content of a compressed file lies. */
export class SeekTable {
  /** Length of the content in bytes. */
  readonly bytes: number;
  /** Length of the longest frame's content, and of the longest frame in the file. */
  readonly frameBytesMax: number;
  readonly frameFileBytesMax: number;
  readonly #offsets: Float64Array;
  readonly #fileOffsets: Float64Array;
  readonly #checksums: Uint32Array | undefined;

  /**
   * @param table The whole table, `tableBytes` long.
   * @param fileBytes Length of the file, which frames and table must fill exactly.
   * @throws {StreamError} when lengths do not add up or a frame is longer than is allowed.
   */
  constructor(table: Uint8Array, footer: SeekTableFooter, fileBytes: number) {
    const { frames, hasChecksums } = footer;
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
    const magic = view.getUint32(0, true);
    const bytesAfter = view.getUint32(4, true);
    if (magic !== SKIPPABLE_MAGIC || bytesAfter !== table.byteLength - SKIPPABLE_HEADER_BYTES) {
      throw fileError("SEEK_TABLE", `its seek table begins with ${magic} and ${bytesAfter}`);
    }
    this.#offsets = new Float64Array(frames + 1);
    this.#fileOffsets = new Float64Array(frames + 1);
    this.#checksums = hasChecksums ? new Uint32Array(frames) : undefined;
    let frameBytesMax = 0;
    let frameFileBytesMax = 0;
    const entryBytes = hasChecksums ? 12 : 8;
    for (let frame = 0; frame < frames; frame++) {
      const at = SKIPPABLE_HEADER_BYTES + frame * entryBytes;
      const inFile = view.getUint32(at, true);
      const content = view.getUint32(at + 4, true);
      if (content > SEEKABLE_FRAME_BYTES_MAX || inFile > 2 * SEEKABLE_FRAME_BYTES_MAX) {
        throw fileError(
          "SEEK_TABLE",
          `frame ${frame} has ${inFile} bytes for ${content}, at most ${SEEKABLE_FRAME_BYTES_MAX}`,
        );
      }
      this.#fileOffsets[frame + 1] = this.#fileOffsets[frame] + inFile;
      this.#offsets[frame + 1] = this.#offsets[frame] + content;
      if (this.#checksums !== undefined) this.#checksums[frame] = view.getUint32(at + 8, true);
      frameBytesMax = Math.max(frameBytesMax, content);
      frameFileBytesMax = Math.max(frameFileBytesMax, inFile);
    }
    const end = this.#fileOffsets[frames] + table.byteLength;
    if (end !== fileBytes) {
      throw fileError(
        "SEEK_TABLE",
        `its frames and seek table have ${end} bytes, not ${fileBytes}`,
      );
    }
    this.bytes = this.#offsets[frames];
    this.frameBytesMax = frameBytesMax;
    this.frameFileBytesMax = frameFileBytesMax;
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
