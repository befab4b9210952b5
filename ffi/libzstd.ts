/**
 * libzstd: one compression and one decompression stream per channel, driven through
 * `ZSTD_inBuffer` and `ZSTD_outBuffer` in an arena.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where libzstd is looked for. */
export const LIBZSTD: LibrarySource = {
  name: "libzstd",
  sonames: ["libzstd.so.1"],
  override: "MULTIFD_LIBZSTD",
  debianPackage: "libzstd1",
};

const ZSTD_e_continue = 0;
const ZSTD_e_flush = 1;
const ZSTD_e_end = 2;
const ZSTD_c_compressionLevel = 100;
const ZSTD_c_windowLog = 101;
const ZSTD_d_windowLogMax = 100;
const ZSTD_reset_session_only = 1;

/** Status of a frame whose window is above the limit of the decompressor. */
export const ZSTD_WINDOW_TOO_LARGE = -16;

/** For fast levels a MiB: 2.7 % less output from the RAM of a Linux guest, and 2 % less time. */
export const FAST_WINDOW_BITS = 20;

/**
 * Whether libzstd's own choice at `level` is a window of half a MiB, which is made a whole one here:
 * levels up to 1, where 0 is another name of 3.
 */
export function isFastZstdLevel(level: number): boolean {
  return level <= 1 && level !== 0;
}

const CONTEXT = NativeType.ptr; // ZSTD_CCtx * or ZSTD_DCtx *
const STATUS = NativeType.u64_fast; // size_t: a count, or an error code near 2^64 (a BigInt here)
const SYMBOLS = {
  ZSTD_versionString: { args: [], returns: NativeType.cstring },
  ZSTD_getErrorName: { args: [NativeType.u64], returns: NativeType.cstring }, // code
  ZSTD_createCCtx: { args: [], returns: CONTEXT },
  ZSTD_freeCCtx: { args: [CONTEXT], returns: STATUS },
  ZSTD_CCtx_setParameter: { args: [CONTEXT, "i32", "i32"], returns: STATUS }, // cctx, param, value
  ZSTD_compressStream2: { args: [CONTEXT, "ptr", "ptr", "i32"], returns: STATUS }, // cctx, output, input, endOp; bytes still unflushed
  ZSTD_CCtx_reset: { args: [CONTEXT, "i32"], returns: STATUS }, // cctx, reset
  ZSTD_createDCtx: { args: [], returns: CONTEXT },
  ZSTD_freeDCtx: { args: [CONTEXT], returns: STATUS },
  ZSTD_DCtx_setParameter: { args: [CONTEXT, "i32", "i32"], returns: STATUS }, // dctx, param, value
  ZSTD_decompressStream: { args: [CONTEXT, "ptr", "ptr"], returns: STATUS }, // dctx, output, input; 0 at frame end or a hint
} as const;

type Libzstd = ReturnType<typeof open>;
type Context = Parameters<Libzstd["ZSTD_freeCCtx"]>[0];

const open = () => openLibrary(LIBZSTD, SYMBOLS);
let opened: Libzstd | undefined;

function libzstd(): Libzstd {
  return (opened ??= open());
}

/** Version text of the running libzstd. */
export function zstdVersion(): string {
  return String(libzstd().ZSTD_versionString());
}

function unwrap(call: string, status: number | bigint): number {
  // Every size fits in a number; only an error code is large enough to arrive as a BigInt.
  if (typeof status === "number") return status;
  throw new NativeCodecError(
    `${call}: ${String(libzstd().ZSTD_getErrorName(status))}`,
    Number(BigInt.asIntN(64, status)),
  );
}

/*
 * ZSTD_inBuffer and ZSTD_outBuffer, 24 bytes each: 0 pointer, 8 size, 16 pos.
 */
const INPUT_AT = 0;
const OUTPUT_AT = 64;
const SIZE_AT = 8;
const POSITION_AT = 16;
const BUFFERS_BYTES = 128;

/** The two buffer structs and the moves both directions share. */
abstract class ZstdStream implements Disposable {
  readonly #arena = new Arena(BUFFERS_BYTES);
  protected readonly input = (this.#arena.address + INPUT_AT) as unknown as Context;
  protected readonly output = (this.#arena.address + OUTPUT_AT) as unknown as Context;

  /** Points the stream at its input. The memory must stay alive until it is consumed. */
  setInput(address: number, bytes: number): void {
    this.#set(INPUT_AT, address, bytes);
  }

  /** Points the stream at its output. The memory must stay alive until it is filled. */
  setOutput(address: number, bytes: number): void {
    this.#set(OUTPUT_AT, address, bytes);
  }

  /** Input bytes not yet consumed. */
  get inputLeft(): number {
    return this.#left(INPUT_AT);
  }

  /** Output bytes not yet filled. */
  get outputLeft(): number {
    return this.#left(OUTPUT_AT);
  }

  #set(at: number, address: number, bytes: number): void {
    this.#arena.setPointer(at, address);
    this.#arena.setPointer(at + SIZE_AT, bytes);
    this.#arena.setPointer(at + POSITION_AT, 0);
  }

  #left(at: number): number {
    return this.#arena.pointerAt(at + SIZE_AT) - this.#arena.pointerAt(at + POSITION_AT);
  }

  abstract [Symbol.dispose](): void;
}

/**
 * One compression context with libzstd's parameters, but for the window of its fastest levels. A frame
 * ends only where the caller wants it to.
 */
export class ZstdCompressStream extends ZstdStream {
  #context: Context | null;

  constructor(level: number) {
    super();
    this.#context = libzstd().ZSTD_createCCtx() as Context | null;
    if (this.#context === null) throw new NativeCodecError("ZSTD_createCCtx() is out of memory", 0);
    this.#setLevel(level);
  }

  /**
   * Begins a new frame, after {@linkcode finish} or where the caller has ended the last one itself;
   * `level` holds from now on. A running frame keeps its level whatever is set.
   */
  reset(level?: number): void {
    unwrap("ZSTD_CCtx_reset()", libzstd().ZSTD_CCtx_reset(this.#live(), ZSTD_reset_session_only));
    if (level !== undefined) this.#setLevel(level);
  }

  /** Consumes input; with `flush` everything consumed so far is in the output. */
  compress(flush: boolean): void {
    this.#compress(flush ? ZSTD_e_flush : ZSTD_e_continue);
  }

  /** Consumes input and ends the frame. */
  finish(): void {
    this.#compress(ZSTD_e_end);
  }

  #setLevel(level: number): void {
    unwrap(
      "ZSTD_CCtx_setParameter(compressionLevel)",
      libzstd().ZSTD_CCtx_setParameter(this.#live(), ZSTD_c_compressionLevel, level),
    );
    const windowBits = isFastZstdLevel(level) ? FAST_WINDOW_BITS : 0; // 0: the level's own
    unwrap(
      "ZSTD_CCtx_setParameter(windowLog)",
      libzstd().ZSTD_CCtx_setParameter(this.#live(), ZSTD_c_windowLog, windowBits),
    );
  }

  #compress(endOp: number): void {
    const heldBack = unwrap(
      "ZSTD_compressStream2()",
      libzstd().ZSTD_compressStream2(this.#live(), this.output, this.input, endOp),
    );
    if (endOp !== ZSTD_e_continue && heldBack > 0) {
      throw new NativeCodecError(`ZSTD_compressStream2() holds back ${heldBack} bytes`, 0);
    }
  }

  #live(): Context {
    if (this.#context === null) throw new TypeError("Cannot compress: the stream is disposed");
    return this.#context;
  }

  [Symbol.dispose](): void {
    if (this.#context !== null) libzstd().ZSTD_freeCCtx(this.#context);
    this.#context = null;
  }
}

/** One decompression context with a limit on windows. */
export class ZstdDecompressStream extends ZstdStream {
  #context: Context | null;

  /** @param windowBits Largest window as a power of two; default libzstd's own 27. */
  constructor(windowBits?: number) {
    super();
    this.#context = libzstd().ZSTD_createDCtx() as Context | null;
    if (this.#context === null) throw new NativeCodecError("ZSTD_createDCtx() is out of memory", 0);
    if (windowBits === undefined) return;
    unwrap(
      "ZSTD_DCtx_setParameter(windowLogMax)",
      libzstd().ZSTD_DCtx_setParameter(this.#context, ZSTD_d_windowLogMax, windowBits),
    );
  }

  /** Produces as much output as input and room allow. */
  decompress(): void {
    if (this.#context === null) throw new TypeError("Cannot decompress: the stream is disposed");
    unwrap(
      "ZSTD_decompressStream()",
      libzstd().ZSTD_decompressStream(this.#context, this.output, this.input),
    );
  }

  [Symbol.dispose](): void {
    if (this.#context !== null) libzstd().ZSTD_freeDCtx(this.#context);
    this.#context = null;
  }
}
