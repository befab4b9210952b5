/**
 * zlib: raw deflate and inflate, driven through a `z_stream` in an arena, as streams and range by
 * range. Containers are the callers' business, as with the other deflate libraries.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where zlib is looked for. */
export const LIBZ: LibrarySource = {
  name: "libz",
  sonames: ["libz.so.1"],
  override: "MULTIFD_LIBZ",
  debianPackage: "zlib1g",
};

const Z_OK = 0;
const Z_BUF_ERROR = -5;
const Z_STREAM_END = 1;
const Z_NO_FLUSH = 0;
const Z_SYNC_FLUSH = 2;
const Z_FINISH = 4;
const Z_DEFLATED = 8;
const Z_DEFAULT_STRATEGY = 0;
const WINDOW_BITS = 15; // negative in a call: raw deflate
const MEMORY_LEVEL = 8;

const STREAM = NativeType.ptr; // z_stream *
const SYMBOLS = {
  zlibVersion: { args: [], returns: NativeType.cstring },
  deflateInit2_: {
    // strm, level, method, windowBits, memLevel, strategy, version, stream_size
    args: [STREAM, "i32", "i32", "i32", "i32", "i32", NativeType.cstring, "i32"],
    returns: "i32",
  },
  deflate: { args: [STREAM, "i32"], returns: "i32" }, // strm, flush
  deflateParams: { args: [STREAM, "i32", "i32"], returns: "i32" }, // strm, level, strategy
  deflateReset: { args: [STREAM], returns: "i32" },
  deflateEnd: { args: [STREAM], returns: "i32" },
  inflateInit2_: { args: [STREAM, "i32", NativeType.cstring, "i32"], returns: "i32" }, // strm, windowBits, version, stream_size
  inflate: { args: [STREAM, "i32"], returns: "i32" }, // strm, flush
  inflateReset: { args: [STREAM], returns: "i32" },
  inflateEnd: { args: [STREAM], returns: "i32" },
  adler32: { args: [NativeType.u64_fast, NativeType.ptr, "u32"], returns: NativeType.u64_fast }, // adler, buf, len
  crc32: { args: [NativeType.u64_fast, NativeType.ptr, "u32"], returns: NativeType.u64_fast }, // crc, buf, len
} as const;

type Libz = ReturnType<typeof open>;
type Stream = Parameters<Libz["deflateEnd"]>[0];

const open = () => openLibrary(LIBZ, SYMBOLS);
let opened: Libz | undefined;

function libz(): Libz {
  return (opened ??= open());
}

/*
 * z_stream on 64-bit Linux:
 *
 *   0 next_in    8 avail_in (u32)   16 total_in
 *  24 next_out  32 avail_out (u32)  40 total_out
 *  48 msg       56 state            64 zalloc  72 zfree  80 opaque
 *  88 data_type 96 adler           104 reserved
 */
const NEXT_IN_AT = 0;
const AVAIL_IN_AT = 8;
const NEXT_OUT_AT = 24;
const AVAIL_OUT_AT = 32;
const STREAM_BYTES = 112;

/** Version text of the running zlib. */
export function zlibVersion(): string {
  return String(libz().zlibVersion());
}

/** Adler-32 of a range. */
export function zlibAdler32(address: number, bytes: number): number {
  return Number(libz().adler32(1, address as unknown as Stream, bytes));
}

/** CRC-32 of a range, as gzip defines it. */
export function zlibCrc32(address: number, bytes: number): number {
  return Number(libz().crc32(0, address as unknown as Stream, bytes));
}

function unwrap(call: string, status: number): number {
  // Z_BUF_ERROR only says that no progress was possible; the callers look at the counts.
  if (status >= Z_OK || status === Z_BUF_ERROR) return status;
  throw new NativeCodecError(`${call} returned ${status}`, status);
}

/** A `z_stream` and the moves both directions share. The native state is freed by `dispose()`. */
abstract class ZlibStream implements Disposable {
  readonly #arena = new Arena(STREAM_BYTES);
  protected readonly stream = this.#arena.address as unknown as Stream;
  protected open = false;

  /** Points the stream at its input. The memory must stay alive until it is consumed. */
  setInput(address: number, bytes: number): void {
    this.#arena.setPointer(NEXT_IN_AT, address);
    this.#arena.u32[AVAIL_IN_AT >>> 2] = bytes;
  }

  /** Points the stream at its output. The memory must stay alive until it is filled. */
  setOutput(address: number, bytes: number): void {
    this.#arena.setPointer(NEXT_OUT_AT, address);
    this.#arena.u32[AVAIL_OUT_AT >>> 2] = bytes;
  }

  /** Input bytes not yet consumed. */
  get inputLeft(): number {
    return this.#arena.u32[AVAIL_IN_AT >>> 2] ?? 0;
  }

  /** Output bytes not yet filled. */
  get outputLeft(): number {
    return this.#arena.u32[AVAIL_OUT_AT >>> 2] ?? 0;
  }

  /** A call after the end would hand freed memory to C. */
  protected checkOpen(): void {
    if (!this.open) throw new TypeError("Cannot use the zlib stream: it is disposed");
  }

  abstract [Symbol.dispose](): void;
}

/** A raw deflate stream with default memory level; also for ranges on their own. */
export class ZlibDeflate extends ZlibStream {
  #level: number;

  /**
   * @param level 0 to 9.
   * @param windowBits Farthest back-reference, a power of two, 9 to 15.
   */
  constructor(level: number, windowBits = WINDOW_BITS) {
    super();
    this.#level = level;
    unwrap(
      "deflateInit2()",
      libz().deflateInit2_(
        this.stream,
        level,
        Z_DEFLATED,
        -windowBits,
        MEMORY_LEVEL,
        Z_DEFAULT_STRATEGY,
        zlibVersion(),
        STREAM_BYTES,
      ),
    );
    this.open = true;
  }

  /** Forgets all history, as at a start; `level` holds from now on. */
  reset(level = this.#level): void {
    this.checkOpen();
    unwrap("deflateReset()", libz().deflateReset(this.stream));
    if (level === this.#level) return;
    unwrap("deflateParams()", libz().deflateParams(this.stream, level, Z_DEFAULT_STRATEGY));
    this.#level = level;
  }

  /** Consumes input; with `flush` the output ends on a byte boundary that a reader can act on. */
  compress(flush: boolean): void {
    this.checkOpen();
    unwrap("deflate()", libz().deflate(this.stream, flush ? Z_SYNC_FLUSH : Z_NO_FLUSH));
  }

  /**
   * Compresses a range to one complete stream. Bytes written to `to`, or 0 when `capacity` is too
   * small for the result.
   */
  deflate(from: number, bytes: number, to: number, capacity: number): number {
    this.reset();
    this.setInput(from, bytes);
    this.setOutput(to, capacity);
    const status = unwrap("deflate()", libz().deflate(this.stream, Z_FINISH));
    return status === Z_STREAM_END ? capacity - this.outputLeft : 0;
  }

  [Symbol.dispose](): void {
    if (this.open) libz().deflateEnd(this.stream);
    this.open = false;
  }
}

/** A raw inflate stream that accepts every window size; also for ranges on their own. */
export class ZlibInflate extends ZlibStream {
  constructor() {
    super();
    unwrap(
      "inflateInit2()",
      libz().inflateInit2_(this.stream, -WINDOW_BITS, zlibVersion(), STREAM_BYTES),
    );
    this.open = true;
  }

  /** Produces as much output as input and room allow. */
  decompress(): void {
    this.checkOpen();
    unwrap("inflate()", libz().inflate(this.stream, Z_SYNC_FLUSH));
  }

  /**
   * Inflates one complete stream that starts at `from` and ends within `bytes` bytes; returns the
   * bytes written to `to`. What follows the stream is left in {@linkcode inputLeft}.
   *
   * @throws {NativeCodecError} when it is damaged, cut short, or gives more than `capacity` bytes.
   */
  inflate(from: number, bytes: number, to: number, capacity: number): number {
    this.checkOpen();
    unwrap("inflateReset()", libz().inflateReset(this.stream));
    this.setInput(from, bytes);
    this.setOutput(to, capacity);
    const status = unwrap("inflate()", libz().inflate(this.stream, Z_FINISH));
    if (status === Z_STREAM_END) return capacity - this.outputLeft;
    const reason = this.outputLeft > 0 ? "it ends early" : "it gives too much";
    throw new NativeCodecError(reason, status);
  }

  [Symbol.dispose](): void {
    if (this.open) libz().inflateEnd(this.stream);
    this.open = false;
  }
}
