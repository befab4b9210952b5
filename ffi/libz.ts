/**
 * zlib: one deflate or inflate stream per channel, driven through a `z_stream` in an arena.
 *
 * @module
 */
import { FFIType } from "bun:ffi";
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
const Z_SYNC_FLUSH = 2;
const Z_NO_FLUSH = 0;
const Z_DEFLATED = 8;
const Z_DEFAULT_STRATEGY = 0;
const WINDOW_BITS = 15;
const MEMORY_LEVEL = 8;

const STREAM = FFIType.ptr; // z_stream *
const SYMBOLS = {
  zlibVersion: { args: [], returns: FFIType.cstring },
  deflateInit2_: {
    // strm, level, method, windowBits, memLevel, strategy, version, stream_size
    args: [STREAM, "i32", "i32", "i32", "i32", "i32", FFIType.cstring, "i32"],
    returns: "i32",
  },
  deflate: { args: [STREAM, "i32"], returns: "i32" }, // strm, flush
  deflateEnd: { args: [STREAM], returns: "i32" },
  inflateInit2_: { args: [STREAM, "i32", FFIType.cstring, "i32"], returns: "i32" }, // strm, windowBits, version, stream_size
  inflate: { args: [STREAM, "i32"], returns: "i32" }, // strm, flush
  inflateEnd: { args: [STREAM], returns: "i32" },
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

function unwrap(call: string, status: number): void {
  // Z_BUF_ERROR only says that no progress was possible; the callers look at the counts.
  if (status !== Z_OK && status !== Z_BUF_ERROR) {
    throw new NativeCodecError(`${call} returned ${status}`, status);
  }
}

/** A `z_stream` and the moves both directions share. The native state is freed by `dispose()`. */
abstract class ZlibStream implements Disposable {
  readonly #arena = new Arena(STREAM_BYTES);
  protected readonly stream = this.#arena.address as unknown as Stream;

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

  abstract [Symbol.dispose](): void;
}

/** A deflate stream with a zlib header, 15-bit window and default memory level. */
export class DeflateStream extends ZlibStream {
  #open: boolean;

  constructor(level: number) {
    super();
    unwrap(
      "deflateInit2()",
      libz().deflateInit2_(
        this.stream,
        level,
        Z_DEFLATED,
        WINDOW_BITS,
        MEMORY_LEVEL,
        Z_DEFAULT_STRATEGY,
        zlibVersion(),
        STREAM_BYTES,
      ),
    );
    this.#open = true;
  }

  /** Consumes input; with `flush` the output ends on a byte boundary that a reader can act on. */
  deflate(flush: boolean): void {
    unwrap("deflate()", libz().deflate(this.stream, flush ? Z_SYNC_FLUSH : Z_NO_FLUSH));
  }

  [Symbol.dispose](): void {
    if (this.#open) libz().deflateEnd(this.stream);
    this.#open = false;
  }
}

/** An inflate stream that expects a zlib header and accepts every window size. */
export class InflateStream extends ZlibStream {
  #open: boolean;

  constructor() {
    super();
    unwrap(
      "inflateInit2()",
      libz().inflateInit2_(this.stream, WINDOW_BITS, zlibVersion(), STREAM_BYTES),
    );
    this.#open = true;
  }

  /** Produces as much output as input and room allow. */
  inflate(): void {
    unwrap("inflate()", libz().inflate(this.stream, Z_SYNC_FLUSH));
  }

  [Symbol.dispose](): void {
    if (this.#open) libz().inflateEnd(this.stream);
    this.#open = false;
  }
}
