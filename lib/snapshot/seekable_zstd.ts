/**
 * Reads a snapshot that is stored compressed, any range of it, without decompressing the rest.
 *
 * @module
 */
import { Arena, viewOfMemory } from "../../ffi/arena.ts";
import { NativeCodecError } from "../../ffi/errors.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { ZstdDecompressStream } from "../../ffi/libzstd.ts";
import { xxHash64 } from "../../ffi/runtime/runtime.ts";
import type { OpenedFile } from "../storage/opened_file.ts";
import { fileError } from "./mapped_ram_format.ts";
import { readWhole, type SnapshotSource } from "./positioned_io.ts";
import type { SeekableFrame, SeekTable, SharedSeekTable } from "./seek_table.ts";

/** See the module comment. One frame is kept decompressed, for reads smaller than a frame. */
export class SeekableZstdSource implements SnapshotSource {
  readonly bytes: number;
  readonly file: OpenedFile;
  readonly #table: SeekTable;
  readonly #input: Arena;
  readonly #content: Arena;
  readonly #spare = new Arena(1);
  #stream = new ZstdDecompressStream();
  #cached = -1;

  /** @param file Belongs to this object. */
  constructor(file: OpenedFile, table: SeekTable) {
    this.file = file;
    this.#table = table;
    this.bytes = table.bytes;
    this.#input = new Arena(Math.max(1, this.#table.frameFileBytesMax));
    this.#content = new Arena(Math.max(1, this.#table.frameBytesMax));
  }

  read(address: number, bytes: number, offset: number): void {
    const end = offset + bytes;
    if (end > this.bytes) throw fileError("TRUNCATED", `it ends at ${this.bytes}, before ${end}`);
    for (let at = offset; at < end;) {
      const index = this.#table.indexAt(at);
      const frame = this.#table.frame(index);
      const stop = Math.min(end, frame.offset + frame.bytes);
      const target = address + (at - offset);
      if (stop - at === frame.bytes) {
        this.#decompress(frame, target);
      } else {
        this.#cache(index, frame);
        copyMemory(target, this.#content.address + (at - frame.offset), stop - at);
      }
      at = stop;
    }
  }

  get seekTable(): SharedSeekTable {
    return this.#table.share();
  }

  readSparse(address: number, bytes: number, offset: number): void {
    this.read(address, bytes, offset);
  }

  /** Decompresses the frame of that number to `address`. */
  readFrame(index: number, address: number): void {
    this.#decompress(this.#table.frame(index), address);
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
    this.file[Symbol.dispose]();
  }

  #cache(index: number, frame: SeekableFrame): void {
    if (this.#cached === index) return;
    this.#cached = -1;
    this.#decompress(frame, this.#content.address);
    this.#cached = index;
  }

  #decompress(frame: SeekableFrame, address: number): void {
    const { fileBytes, fileOffset, bytes, checksum } = frame;
    readWhole(this.file.fd, this.#input.address, fileBytes, fileOffset);
    const problem = this.#fill(address, bytes, fileBytes);
    if (problem !== undefined) {
      // The context is in the middle of a frame; the next one must not be taken for its rest.
      this.#stream[Symbol.dispose]();
      this.#stream = new ZstdDecompressStream();
      throw fileError("FRAME", `frame at ${fileOffset} ${problem}`);
    }
    if (checksum !== undefined && contentChecksum(viewOfMemory(address, bytes)) !== checksum) {
      throw fileError("CHECKSUM", `frame at ${fileOffset} does not have its checksum ${checksum}`);
    }
  }

  /** Decompresses the frame in the input buffer; says what is wrong with it. */
  #fill(address: number, bytes: number, fileBytes: number): string | undefined {
    const stream = this.#stream;
    try {
      stream.setInput(this.#input.address, fileBytes);
      stream.setOutput(address, bytes);
      while (stream.outputLeft > 0) {
        const left = stream.inputLeft + stream.outputLeft;
        stream.decompress();
        if (stream.inputLeft + stream.outputLeft === left) return "ends early";
      }
      // The end of the frame is still in the input; a byte of output would be one too many.
      stream.setOutput(this.#spare.address, 1);
      if (stream.inputLeft > 0) stream.decompress();
      return stream.inputLeft > 0 || stream.outputLeft === 0 ? "is too long" : undefined;
    } catch (error) {
      if (error instanceof NativeCodecError) return `is damaged: ${error.message}`;
      throw error;
    }
  }
}

/** Checksum of a frame's content: the low half of its XXH64. */
export function contentChecksum(content: Uint8Array): number {
  return Number(xxHash64(content) & 0xffff_ffffn);
}
