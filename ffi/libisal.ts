/**
 * ISA-L's igzip: raw deflate and inflate several times as fast as zlib's. Streams for the zlib
 * method, one-shot calls for the methods that compress pages on their own.
 *
 * Only the public head of each struct is touched; what follows is igzip's own. Containers (zlib,
 * gzip) are written and read by the callers, so no field behind the head is ever needed.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { NativeCodecError } from "./errors.ts";
import { mappedFile, openLibrary, type LibrarySource } from "./library.ts";

/** Where ISA-L is looked for. */
export const LIBISAL: LibrarySource = {
  name: "libisal",
  sonames: ["libisal.so.2"],
  override: "MULTIFD_LIBISAL",
  debianPackage: "libisal2",
};

const STREAM = NativeType.ptr; // struct isal_zstream * or struct inflate_state *
const SYMBOLS = {
  isal_deflate_init: { args: [STREAM], returns: NativeType.void },
  isal_deflate_stateless_init: { args: [STREAM], returns: NativeType.void },
  isal_deflate: { args: [STREAM], returns: "i32" }, // COMP_OK or an error below 0
  isal_deflate_stateless: { args: [STREAM], returns: "i32" }, // COMP_OK or STATELESS_OVERFLOW
  isal_inflate_init: { args: [STREAM], returns: NativeType.void },
  isal_inflate: { args: [STREAM], returns: "i32" }, // ISAL_DECOMP_OK, an error below 0, or a need above
  isal_inflate_stateless: { args: [STREAM], returns: "i32" },
  isal_adler32: { args: ["u32", NativeType.ptr, NativeType.u64_fast], returns: "u32" }, // init, buf, len
  crc32_gzip_refl: { args: ["u32", NativeType.ptr, NativeType.u64_fast], returns: "u32" }, // init, buf, len
} as const;

type Libisal = ReturnType<typeof open>;
type Address = Parameters<Libisal["isal_deflate"]>[0];

const open = () => openLibrary(LIBISAL, SYMBOLS);
let opened: Libisal | undefined;

function libisal(): Libisal {
  return (opened ??= open());
}

/*
 * struct isal_zstream, 82,384 bytes in 2.30:
 *
 *   0 next_in    8 avail_in (u32)   12 total_in
 *  16 next_out  24 avail_out (u32)  28 total_out
 *  32 hufftables                    40 level (u32)  44 level_buf_size (u32)
 *  48 level_buf                     56 end_of_stream (u16)  58 flush (u16)
 *  60 gzip_flag (u16)               62 hist_bits (u16)      64 internal_state
 */
const DEFLATE_NEXT_IN_AT = 0;
const DEFLATE_AVAIL_IN_AT = 8;
const DEFLATE_TOTAL_IN_AT = 12;
const DEFLATE_NEXT_OUT_AT = 16;
const DEFLATE_AVAIL_OUT_AT = 24;
const LEVEL_AT = 40;
const LEVEL_BUFFER_BYTES_AT = 44;
const LEVEL_BUFFER_AT = 48;
const END_OF_STREAM_AT = 56;
const FLUSH_AT = 58;
const HISTORY_BITS_AT = 62;

/*
 * struct inflate_state, 87,368 bytes in 2.30:
 *
 *   0 next_out   8 avail_out (u32)  12 total_out
 *  16 next_in   24 read_in          32 avail_in (u32)  36 read_in_length
 */
const INFLATE_NEXT_OUT_AT = 0;
const INFLATE_AVAIL_OUT_AT = 8;
const INFLATE_NEXT_IN_AT = 16;
const INFLATE_AVAIL_IN_AT = 32;

/** Room for either struct, with a reserve for releases that grow their private part. */
const STATE_BYTES = 131_072;

/**
 * Level buffers: what each level needs for itself (`ISAL_DEF_LVLn_REQ` of 2.30), and room for 16 Ki
 * tokens, which is `ISAL_DEF_LVLn_SMALL`. A block of deflate ends when they are used up, so a small
 * buffer has codes that fit better: on guest memory the ratio is 1 to 2 % better than with the
 * default of 64 Ki, inflating a quarter faster, and compressing 6 % slower.
 */
const TOKENS_BYTES = 16_384 * 4;
const LEVEL_BUFFER_BYTES = [
  0,
  20_480 + TOKENS_BYTES,
  69_632 + TOKENS_BYTES,
  86_016 + TOKENS_BYTES,
] as const;

/** Highest level of igzip. */
export const ISAL_LEVEL_MAX = LEVEL_BUFFER_BYTES.length - 1;

const SYNC_FLUSH = 1;
const COMP_OK = 0;
const STATELESS_OVERFLOW = -1;
const ISAL_DECOMP_OK = 0;
const ISAL_OUT_OVERFLOW = 2;

/** Release of the library, by its file's name since it has no call for it; undefined when unknown. */
export function isalVersion(): string | undefined {
  libisal();
  const [, major, minor] = /\.so\.(\d+)\.\d+\.(\d+)$/.exec(mappedFile(LIBISAL) ?? "") ?? [];
  return minor === undefined ? undefined : `${major}.${minor}`;
}

/** Adler-32 of a range. */
export function isalAdler32(address: number, bytes: number): number {
  return libisal().isal_adler32(1, address as Address, bytes);
}

/** CRC-32 of a range, as gzip defines it. */
export function isalCrc32(address: number, bytes: number): number {
  return libisal().crc32_gzip_refl(0, address as Address, bytes);
}

function unwrap(call: string, status: number): number {
  if (status >= 0) return status;
  throw new NativeCodecError(`${call} returned ${status}`, status);
}

/** The struct of a compressor with its level buffer. */
abstract class IsalCompressor {
  protected readonly arena: Arena;
  protected readonly state: Address;
  readonly #levelBuffer: number;

  constructor() {
    this.arena = new Arena(STATE_BYTES + LEVEL_BUFFER_BYTES[ISAL_LEVEL_MAX] + 64);
    const at = this.arena.reserve(STATE_BYTES);
    this.#levelBuffer = this.arena.reserve(LEVEL_BUFFER_BYTES[ISAL_LEVEL_MAX]);
    this.state = (this.arena.address + at) as unknown as Address;
  }

  protected configure(level: number, flush: number, historyBits: number): void {
    const bufferBytes = LEVEL_BUFFER_BYTES[level];
    if (bufferBytes === undefined) {
      throw new RangeError(`Cannot use igzip level ${level}: must be 0 to ${ISAL_LEVEL_MAX}`);
    }
    const { arena } = this;
    arena.u32[LEVEL_AT >>> 2] = level;
    arena.u32[LEVEL_BUFFER_BYTES_AT >>> 2] = bufferBytes;
    arena.setPointer(LEVEL_BUFFER_AT, bufferBytes === 0 ? 0 : arena.address + this.#levelBuffer);
    arena.view.setUint16(FLUSH_AT, flush, true);
    arena.view.setUint16(HISTORY_BITS_AT, historyBits, true);
  }

  /** Points the compressor at its input, which it consumes in its next call. */
  setInput(address: number, bytes: number): void {
    this.arena.setPointer(DEFLATE_NEXT_IN_AT, address);
    this.arena.u32[DEFLATE_AVAIL_IN_AT >>> 2] = bytes;
  }

  /** Points the compressor at its output. The memory must stay alive until it is filled. */
  setOutput(address: number, bytes: number): void {
    this.arena.setPointer(DEFLATE_NEXT_OUT_AT, address);
    this.arena.u32[DEFLATE_AVAIL_OUT_AT >>> 2] = bytes;
  }

  /** Input bytes not yet consumed. */
  get inputLeft(): number {
    return this.arena.u32[DEFLATE_AVAIL_IN_AT >>> 2] ?? 0;
  }

  /** Output bytes not yet filled. */
  get outputLeft(): number {
    return this.arena.u32[DEFLATE_AVAIL_OUT_AT >>> 2] ?? 0;
  }

  /** The memory is the collector's; the method exists for symmetry with the other engines. */
  [Symbol.dispose](): void {}
}

/** A raw deflate stream with a 32 KiB window. */
export class IsalDeflateStream extends IsalCompressor implements Disposable {
  #level = 0;

  /** @param level igzip's own, 0 to {@linkcode ISAL_LEVEL_MAX}. */
  constructor(level: number) {
    super();
    this.#start(level);
  }

  /** Forgets all history, as at a start; `level` holds from now on. */
  reset(level = this.#level): void {
    this.#start(level);
  }

  #start(level: number): void {
    libisal().isal_deflate_init(this.state);
    this.#level = level;
    this.configure(level, SYNC_FLUSH, 0);
  }

  /** Consumes input; with `flush` the output ends on a byte boundary that a reader can act on. */
  compress(flush: boolean): void {
    this.arena.view.setUint16(FLUSH_AT, flush ? SYNC_FLUSH : 0, true);
    unwrap("isal_deflate()", libisal().isal_deflate(this.state));
  }
}

/** Compresses ranges on their own, each to one complete raw deflate stream. */
export class IsalDeflate extends IsalCompressor implements Disposable {
  /**
   * @param level igzip's own, 0 to {@linkcode ISAL_LEVEL_MAX}.
   * @param windowBits Farthest back-reference, a power of two.
   */
  constructor(level: number, windowBits: number) {
    super();
    libisal().isal_deflate_stateless_init(this.state);
    this.configure(level, 0, windowBits);
    this.arena.view.setUint16(END_OF_STREAM_AT, 1, true);
  }

  /** Bytes written to `to`, or 0 when `capacity` is too small for the result. */
  deflate(from: number, bytes: number, to: number, capacity: number): number {
    this.setInput(from, bytes);
    this.setOutput(to, capacity);
    // igzip derives its block limits from the total, which would run over after 4 GiB.
    this.arena.u32[DEFLATE_TOTAL_IN_AT >>> 2] = 0;
    const status = libisal().isal_deflate_stateless(this.state);
    if (status === COMP_OK) return capacity - this.outputLeft;
    if (status === STATELESS_OVERFLOW) return 0;
    return unwrap("isal_deflate_stateless()", status);
  }
}

/** Inflates raw deflate: a stream piece by piece, or whole streams by one call each. */
export class IsalInflate implements Disposable {
  readonly #arena = new Arena(STATE_BYTES);
  readonly #state = this.#arena.address as unknown as Address;

  constructor() {
    libisal().isal_inflate_init(this.#state);
  }

  /** Points the stream at its input. The memory must stay alive until it is consumed. */
  setInput(address: number, bytes: number): void {
    this.#arena.setPointer(INFLATE_NEXT_IN_AT, address);
    this.#arena.u32[INFLATE_AVAIL_IN_AT >>> 2] = bytes;
  }

  /** Points the stream at its output. The memory must stay alive until it is filled. */
  setOutput(address: number, bytes: number): void {
    this.#arena.setPointer(INFLATE_NEXT_OUT_AT, address);
    this.#arena.u32[INFLATE_AVAIL_OUT_AT >>> 2] = bytes;
  }

  /** Input bytes not yet consumed. */
  get inputLeft(): number {
    return this.#arena.u32[INFLATE_AVAIL_IN_AT >>> 2] ?? 0;
  }

  /** Output bytes not yet filled. */
  get outputLeft(): number {
    return this.#arena.u32[INFLATE_AVAIL_OUT_AT >>> 2] ?? 0;
  }

  /** Produces as much output as input and room allow. */
  decompress(): void {
    unwrap("isal_inflate()", libisal().isal_inflate(this.#state));
  }

  /**
   * Inflates one complete stream that starts at `from` and ends within `bytes` bytes; returns the
   * bytes written to `to`. What follows the stream is left in {@linkcode inputLeft}.
   *
   * @throws {NativeCodecError} when it is damaged, cut short, or gives more than `capacity` bytes.
   */
  inflate(from: number, bytes: number, to: number, capacity: number): number {
    this.setInput(from, bytes);
    this.setOutput(to, capacity);
    const status = unwrap(
      "isal_inflate_stateless()",
      libisal().isal_inflate_stateless(this.#state),
    );
    if (status === ISAL_DECOMP_OK) return capacity - this.outputLeft;
    throw new NativeCodecError(
      status === ISAL_OUT_OVERFLOW ? "it gives too much" : "it ends early",
      status,
    );
  }

  /** The memory is the collector's; the method exists for symmetry with the other engines. */
  [Symbol.dispose](): void {}
}
