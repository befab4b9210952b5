/**
 * The contract between a method and an engine. A method is a wire format and knows framing,
 * containers and limits; an engine is a library and knows raw deflate (or zstd), nothing else. So
 * every method takes every engine that has what it needs, and neither knows the other's name.
 *
 * @module
 */
import { NativeCodecError } from "../../ffi/errors.ts";
import type { LibrarySource } from "../../ffi/library.ts";
import { PACKET_PAGES_MAX } from "../limits.ts";

/** All engines, in the order in which they are reported; `isal` is Intel's ISA-L (igzip). */
export const ENGINE_NAMES = ["libz", "isal", "libdeflate", "libzstd", "libqpl"] as const;
/** Name of a library as the engine of a method. */
export type EngineName = (typeof ENGINE_NAMES)[number];

/** Input and output of a stream; both must stay alive and unchanged until they are used up. */
interface StreamBuffers extends Disposable {
  setInput(address: number, bytes: number): void;
  setOutput(address: number, bytes: number): void;
  /** Input bytes not yet consumed. */
  readonly inputLeft: number;
  /** Output bytes not yet filled. */
  readonly outputLeft: number;
}

/** Compresses without end; output may refer to everything since the last reset. */
export interface StreamCompressor extends StreamBuffers {
  /**
   * Consumes all input, room for output provided. With `flush` everything consumed so far is in the
   * output, which ends on a byte boundary.
   */
  compress(flush: boolean): void;
  /** Forgets all history; must directly follow a flush or `finish()`, or come before everything. */
  reset(level?: number): void;
}

/** A compressor whose format knows an end that a reader may pass. */
export interface FrameCompressor extends StreamCompressor {
  /** As `compress(true)`, and ends the frame: what follows is another one, after a reset. */
  finish(): void;
}

/** Decompresses what a {@linkcode StreamCompressor} made. */
export interface StreamDecompressor extends StreamBuffers {
  /**
   * Produces as much output as input and room allow.
   *
   * @throws {NativeCodecError} for damaged input.
   */
  decompress(): void;
}

/** Compresses ranges on their own. */
export interface RangeCompressor extends Disposable {
  /** Bytes of one complete stream written to `to`, or 0 when `capacity` is too small for it. */
  deflate(from: number, bytes: number, to: number, capacity: number): number;
}

/** Decompresses what a {@linkcode RangeCompressor} made. */
export interface RangeDecompressor extends Disposable {
  /**
   * Inflates the stream that starts at `from` and ends within `bytes` bytes; bytes written to `to`.
   *
   * @throws {NativeCodecError} for damaged input, or more than `capacity` bytes of output.
   */
  inflate(from: number, bytes: number, to: number, capacity: number): number;
  /** Input bytes that followed the last stream. */
  readonly inputLeft: number;
}

/**
 * Compresses the pages of a packet on their own. In two steps, because an accelerator works on many
 * at a time: first every page is submitted, then the results are collected in the same order.
 */
export interface PageCompressor extends Disposable {
  /** Starts page number `index` of the packet. The memory must stay unchanged until collected. */
  submit(index: number, from: number, bytes: number, to: number, capacity: number): void;
  /** Bytes of one complete stream, or 0 when it does not fit. */
  collect(index: number): number;
}

/** Decompresses what a {@linkcode PageCompressor} made, in the same two steps. */
export interface PageDecompressor extends Disposable {
  /** Starts page number `index` of the packet. */
  submit(index: number, from: number, bytes: number, to: number, capacity: number): void;
  /**
   * Bytes of output.
   *
   * @throws {NativeCodecError} for damaged input, or more output than there was room for.
   */
  collect(index: number): number;
}

/** Checksums of the zlib and gzip containers. */
export interface Checksums {
  adler32(address: number, bytes: number): number;
  crc32(address: number, bytes: number): number;
}

/** One library. What is absent it cannot do. Every function throws `MissingLibraryError`. */
export interface Engine {
  /** The library behind it. */
  readonly source: LibrarySource;
  /** Opens the library; its version where it tells it. */
  readonly version: () => string | undefined;
  /** Whether an accelerator does the work, so that it is taken before any other engine. */
  readonly accelerated?: () => boolean;
  /** zstd with frames as long as the caller likes. Levels are zstd's. */
  readonly zstdStream?: StreamEngine<FrameCompressor>;
  /** Raw deflate without end. Levels are zlib's. */
  readonly deflateStream?: StreamEngine;
  /** Raw deflate range by range. Levels are zlib's. */
  readonly deflateRange?: RangeEngine;
  /** Raw deflate page by page, for libraries that work on several pages at a time. */
  readonly deflatePages?: PageEngine;
  /** Checksums; every engine with `deflateRange` has them. */
  readonly checksums?: Checksums;
}

/** Both directions of a stream. */
interface StreamEngine<Compressor extends StreamCompressor = StreamCompressor> {
  /** Levels that are worth choosing between, rising: faster and larger, or slower and smaller. */
  readonly levelSteps: readonly number[];
  readonly compressor: (level: number) => Compressor;
  /** @param windowBits Largest window to take, as a power of two, where a format has several. */
  readonly decompressor: (windowBits?: number) => StreamDecompressor;
}

/** Both directions of single ranges. */
interface RangeEngine {
  /** As of a stream. */
  readonly levelSteps: readonly number[];
  /** Whether back-references can be kept within a window shorter than 32 KiB. */
  readonly shortWindow: boolean;
  /** @param windowBits Farthest back-reference as a power of two; 15 without `shortWindow`. */
  readonly compressor: (level: number, windowBits: number) => RangeCompressor;
  readonly decompressor: () => RangeDecompressor;
}

/** Both directions of single pages; back-references never reach farther than 4 KiB. */
export interface PageEngine {
  /** As of a stream. */
  readonly levelSteps: readonly number[];
  readonly compressor: (level: number) => PageCompressor;
  readonly decompressor: () => PageDecompressor;
}

/** A range compressor as a page compressor: the work is done when a page is submitted. */
export class ImmediatePageCompressor implements PageCompressor {
  readonly #ranges: RangeCompressor;
  readonly #lengths = new Uint32Array(PACKET_PAGES_MAX);

  /** Takes over `ranges`. */
  constructor(ranges: RangeCompressor) {
    this.#ranges = ranges;
  }

  submit(index: number, from: number, bytes: number, to: number, capacity: number): void {
    this.#lengths[index] = this.#ranges.deflate(from, bytes, to, capacity);
  }

  collect(index: number): number {
    return this.#lengths[index];
  }

  [Symbol.dispose](): void {
    this.#ranges[Symbol.dispose]();
  }
}

/** A range decompressor as a page decompressor: the work is done when a page is submitted. */
export class ImmediatePageDecompressor implements PageDecompressor {
  readonly #ranges: RangeDecompressor;
  readonly #lengths = new Uint32Array(PACKET_PAGES_MAX);

  /** Takes over `ranges`. */
  constructor(ranges: RangeDecompressor) {
    this.#ranges = ranges;
  }

  submit(index: number, from: number, bytes: number, to: number, capacity: number): void {
    this.#lengths[index] = this.#ranges.inflate(from, bytes, to, capacity);
    if (this.#ranges.inputLeft > 0) throw new NativeCodecError("bytes follow its end", 0);
  }

  collect(index: number): number {
    return this.#lengths[index];
  }

  [Symbol.dispose](): void {
    this.#ranges[Symbol.dispose]();
  }
}
