/**
 * libdeflate: the fastest inflate of whole streams, and checksums. It knows no streaming.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where libdeflate is looked for. */
export const LIBDEFLATE: LibrarySource = {
  name: "libdeflate",
  sonames: ["libdeflate.so.0"],
  override: "MULTIFD_LIBDEFLATE",
  debianPackage: "libdeflate0",
};

const CONTEXT = NativeType.ptr; // struct libdeflate_compressor * or _decompressor *
const ADDRESS = NativeType.ptr;
const SIZE = NativeType.u64_fast; // size_t
const SYMBOLS = {
  libdeflate_alloc_compressor: { args: ["i32"], returns: CONTEXT }, // compression_level; NULL when out of memory
  libdeflate_deflate_compress: { args: [CONTEXT, ADDRESS, SIZE, ADDRESS, SIZE], returns: SIZE }, // in, in_nbytes, out, out_nbytes_avail; bytes, 0 when they do not fit
  libdeflate_free_compressor: { args: [CONTEXT], returns: NativeType.void },
  libdeflate_alloc_decompressor: { args: [], returns: CONTEXT },
  libdeflate_deflate_decompress_ex: {
    // in, in_nbytes, out, out_nbytes_avail, actual_in_nbytes_ret, actual_out_nbytes_ret
    args: [CONTEXT, ADDRESS, SIZE, ADDRESS, SIZE, ADDRESS, ADDRESS],
    returns: "i32",
  },
  libdeflate_free_decompressor: { args: [CONTEXT], returns: NativeType.void },
  libdeflate_adler32: { args: ["u32", ADDRESS, SIZE], returns: "u32" }, // adler, buffer, len
  libdeflate_crc32: { args: ["u32", ADDRESS, SIZE], returns: "u32" }, // crc, buffer, len
} as const;

type Libdeflate = ReturnType<typeof open>;
type Context = Parameters<Libdeflate["libdeflate_free_compressor"]>[0];

const open = () => openLibrary(LIBDEFLATE, SYMBOLS);
let opened: Libdeflate | undefined;

function libdeflate(): Libdeflate {
  return (opened ??= open());
}

/*
 * The two out-parameters of a decompression: 0 actual_in_nbytes, 8 actual_out_nbytes.
 */
const ACTUAL_IN_AT = 0;
const ACTUAL_OUT_AT = 8;
const RESULTS_BYTES = 16;

/** Opens the library; it cannot tell its release. */
export function libdeflateVersion(): undefined {
  libdeflate();
}

/** Adler-32 of a range. */
export function libdeflateAdler32(address: number, bytes: number): number {
  return libdeflate().libdeflate_adler32(1, address as unknown as Context, bytes);
}

/** CRC-32 of a range, as gzip defines it. */
export function libdeflateCrc32(address: number, bytes: number): number {
  return libdeflate().libdeflate_crc32(0, address as unknown as Context, bytes);
}

/** Compresses ranges on their own, each to one complete raw deflate stream of 32 KiB window. */
export class LibdeflateDeflate implements Disposable {
  #context: Context | null;

  /** @param level 0 to 12. */
  constructor(level: number) {
    this.#context = libdeflate().libdeflate_alloc_compressor(level) as Context | null;
    if (this.#context === null) {
      throw new NativeCodecError("libdeflate_alloc_compressor() is out of memory", 0);
    }
  }

  /** Bytes written to `to`, or 0 when `capacity` is too small for the result. */
  deflate(from: number, bytes: number, to: number, capacity: number): number {
    if (this.#context === null) throw new TypeError("Cannot compress: the context is disposed");
    return Number(
      libdeflate().libdeflate_deflate_compress(
        this.#context,
        from as unknown as Context,
        bytes,
        to as unknown as Context,
        capacity,
      ),
    );
  }

  [Symbol.dispose](): void {
    if (this.#context !== null) libdeflate().libdeflate_free_compressor(this.#context);
    this.#context = null;
  }
}

/** Inflates whole raw deflate streams, one call each. */
export class LibdeflateInflate implements Disposable {
  readonly #results = new Arena(RESULTS_BYTES);
  readonly #actualIn = (this.#results.address + ACTUAL_IN_AT) as unknown as Context;
  readonly #actualOut = (this.#results.address + ACTUAL_OUT_AT) as unknown as Context;
  #context: Context | null;
  /** Input bytes that followed the last stream. */
  inputLeft = 0;

  constructor() {
    this.#context = libdeflate().libdeflate_alloc_decompressor() as Context | null;
    if (this.#context === null) {
      throw new NativeCodecError("libdeflate_alloc_decompressor() is out of memory", 0);
    }
  }

  /**
   * Inflates one complete stream that starts at `from` and ends within `bytes` bytes; returns the
   * bytes written to `to`. What follows the stream is counted in {@linkcode inputLeft}.
   *
   * @throws {NativeCodecError} when it is damaged, cut short, or gives more than `capacity` bytes.
   */
  inflate(from: number, bytes: number, to: number, capacity: number): number {
    if (this.#context === null) throw new TypeError("Cannot decompress: the context is disposed");
    const status = libdeflate().libdeflate_deflate_decompress_ex(
      this.#context,
      from as unknown as Context,
      bytes,
      to as unknown as Context,
      capacity,
      this.#actualIn,
      this.#actualOut,
    );
    if (status !== 0) {
      throw new NativeCodecError(`libdeflate_deflate_decompress_ex() returned ${status}`, status);
    }
    this.inputLeft = bytes - this.#results.pointerAt(ACTUAL_IN_AT);
    return this.#results.pointerAt(ACTUAL_OUT_AT);
  }

  [Symbol.dispose](): void {
    if (this.#context !== null) libdeflate().libdeflate_free_decompressor(this.#context);
    this.#context = null;
  }
}
