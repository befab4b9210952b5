/**
 * The codecs without a session: pages of a SharedArrayBuffer to payloads and back, synchronously, on
 * the calling thread. For programs that move bytes by means of their own, a worker each.
 *
 * A payload is what multifd puts behind one packet header. Methods zlib and zstd keep state from one
 * payload to the next, so a decoder must see every payload of its encoder, in order.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { addressOf, Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { disposedError } from "../errors.ts";
import { PACKET_PAYLOAD_BYTES, PAGE_SIZE_DEFAULT, PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageLayout } from "../memory/block_table.ts";
import { PageRuns } from "../memory/page_runs.ts";
import { checkPageSize } from "../memory/ram_block_options.ts";
import { IovecList } from "../memory/iovec_list.ts";
import { codecError, type PageDecoder, type PageEncoder, type PayloadSource } from "./codec.ts";
import type { CompressionMethod } from "./methods.ts";
import {
  createDecoder,
  createEncoder,
  resolveCompression,
  type CodecDirection,
  type Compression,
  type ResolvedCompression,
} from "./registry.ts";

/** Options of {@linkcode PageStreamEncoder} and {@linkcode PageStreamDecoder}. */
export interface PageStreamOptions {
  /** Memory that the pages are in; kept alive by the stream. */
  readonly memory: SharedArrayBuffer;
  /** Method, or method with level (not `auto`) and engine. Default none. */
  readonly compression?: Compression | CompressionMethod | undefined;
  /** Bytes of a page, 4096 (default), 8192, 16384 or 65536. */
  readonly pageSize?: number | undefined;
}

const PAGE_STREAM_OPTIONS = {
  memory: true,
  compression: true,
  pageSize: true,
} satisfies OptionNames<PageStreamOptions>;

/** What both directions share: memory, limits and the runs of the pages in hand. */
class PageMemory {
  readonly compression: ResolvedCompression;
  readonly pageSize: number;
  readonly runs: PageRuns;
  readonly #memory: SharedArrayBuffer;
  readonly #places: PageLayout;
  readonly #pages: number;

  constructor(options: PageStreamOptions, direction: CodecDirection) {
    checkOptionNames(PAGE_STREAM_OPTIONS, options);
    const { memory, compression, pageSize = PAGE_SIZE_DEFAULT } = options;
    checkPageSize(pageSize);
    if (memory.byteLength === 0 || memory.byteLength % pageSize !== 0) {
      throw new RangeError(
        `Cannot take pages of ${memory.byteLength} bytes of memory: must be a multiple of ${pageSize}`,
      );
    }
    this.#memory = memory;
    this.pageSize = pageSize;
    this.#pages = memory.byteLength / pageSize;
    this.#places = {
      pageSize,
      segmentPages: this.#pages,
      bases: new Float64Array([addressOf(this.#memory)]),
    };
    this.compression = resolveCompression(compression, direction, pageSize);
    if (this.compression.autoLevels !== undefined) {
      throw new RangeError("Cannot use level auto: without a network there is nothing to balance");
    }
    this.runs = new PageRuns(PACKET_PAYLOAD_BYTES / pageSize);
  }

  assign(pages: Uint32Array): void {
    const pagesMax = PACKET_PAYLOAD_BYTES / this.pageSize;
    if (pages.length === 0 || pages.length > pagesMax) {
      throw new RangeError(`Cannot take ${pages.length} pages: must be 1 to ${pagesMax}`);
    }
    for (const page of pages) {
      if (page < this.#pages) continue;
      throw new RangeError(`Cannot take page ${page}: the memory has ${this.#pages}`);
    }
    this.runs.assign(this.#places, pages, 0, pages.length);
  }
}

/**
 * Pages to payloads.
 *
 * @example
 * ```ts
 * const memory = new SharedArrayBuffer(1024 * 4096);
 * using encoder = new PageStreamEncoder({ memory, compression: { method: "zlib", engine: "isal" } });
 * const payload = encoder.encode(Uint32Array.of(0, 1, 2, 7));
 * ```
 */
export class PageStreamEncoder implements Disposable {
  /** What was chosen where the options left it open. */
  readonly compression: ResolvedCompression;
  readonly #memory: PageMemory;
  readonly #encoder: PageEncoder;
  readonly #payload = new Arena(PAYLOAD_BYTES_MAX);
  readonly #pieces = new IovecList();
  #disposed = false;

  /**
   * @throws {RangeError} for options that cannot work.
   * @throws {MissingLibraryError} when the engine's library is not there.
   */
  constructor(options: PageStreamOptions) {
    this.#memory = new PageMemory(options, "encode");
    this.compression = this.#memory.compression;
    this.#encoder = createEncoder(this.compression, this.#memory.pageSize);
  }

  /**
   * Encodes up to 512 KiB of pages; other threads may write to them meanwhile.
   *
   * @param pages Page numbers, in the order in which the decoder is to be given them.
   * @returns The payload, valid until the next call.
   * @throws {RangeError} for no pages, too many, or one outside the memory.
   * @throws {MultifdError} with code `ERR_MULTIFD_DISPOSED` after it was disposed.
   */
  encode(pages: Uint32Array): Uint8Array {
    requireOpen(this.#disposed);
    this.#memory.assign(pages);
    const pieces = this.#pieces;
    pieces.clear();
    const bytes = this.#encoder.encode(this.#memory.runs, pieces);
    let filled = 0;
    pieces.forEach((address, length) => {
      copyMemory(this.#payload.address + filled, address, length);
      filled += length;
    });
    return this.#payload.u8.subarray(0, bytes);
  }

  /**
   * Changes the level from the next payload on.
   *
   * @throws {RangeError} when the method has no such level.
   */
  setLevel(level: number): void {
    requireOpen(this.#disposed);
    const { method } = this.compression;
    resolveCompression({ method, level }, "encode", this.#memory.pageSize);
    this.#encoder.setLevel?.(level);
  }

  /** Frees the native state; the last payload stays readable. */
  [Symbol.dispose](): void {
    if (!this.#disposed) this.#encoder[Symbol.dispose]();
    this.#disposed = true;
  }
}

/**
 * Payloads to pages.
 *
 * @example
 * ```ts
 * using decoder = new PageStreamDecoder({ memory: copy, compression: "zlib" });
 * decoder.decode(payload, Uint32Array.of(0, 1, 2, 7));
 * ```
 */
export class PageStreamDecoder implements Disposable {
  /** What was chosen where the options left it open. */
  readonly compression: ResolvedCompression;
  readonly #memory: PageMemory;
  readonly #decoder: PageDecoder;
  readonly #source = new MemoryPayload();
  #disposed = false;

  /**
   * @throws {RangeError} for options that cannot work.
   * @throws {MissingLibraryError} when the engine's library is not there.
   */
  constructor(options: PageStreamOptions) {
    this.#memory = new PageMemory(options, "decode");
    this.compression = this.#memory.compression;
    this.#decoder = createDecoder(this.compression, this.#memory.pageSize);
  }

  /**
   * Fills `pages` from a payload; writes nowhere else, whatever the payload is. After an error the
   * decoder is of no more use. A payload in a SharedArrayBuffer saves a copy.
   *
   * @throws {CodecError} when the payload does not decode to exactly these pages.
   * @throws {RangeError} for no pages, too many, or one outside the memory.
   * @throws {MultifdError} with code `ERR_MULTIFD_DISPOSED` after it was disposed.
   */
  decode(payload: Uint8Array, pages: Uint32Array): void {
    requireOpen(this.#disposed);
    this.#memory.assign(pages);
    const { method } = this.compression;
    const { length } = payload;
    const bytes = this.#memory.runs.bytes;
    if (length === 0 || length > PAYLOAD_BYTES_MAX || (method === "none" && length !== bytes)) {
      const limit = method === "none" ? bytes : `1 to ${PAYLOAD_BYTES_MAX}`;
      throw codecError(method, `it has ${length} bytes, must have ${limit}`);
    }
    this.#source.fill(payload);
    this.#decoder.decode(this.#memory.runs, length, this.#source);
  }

  /** Frees the native state. */
  [Symbol.dispose](): void {
    if (!this.#disposed) this.#decoder[Symbol.dispose]();
    this.#disposed = true;
  }
}

/** @throws {MultifdError} for a stream that is used after it was disposed. */
function requireOpen(disposed: boolean): void {
  if (disposed) throw disposedError("page stream");
}

/** A payload that is in memory already. One in shared memory is read where it lies. */
class MemoryPayload implements PayloadSource {
  readonly #copy = new Arena(PAYLOAD_BYTES_MAX);
  #shared: SharedArrayBuffer = this.#copy.buffer;
  #sharedAddress = this.#copy.address;
  #next = 0;

  fill(payload: Uint8Array): void {
    const { buffer, byteOffset } = payload;
    if (buffer instanceof SharedArrayBuffer) {
      // Kept, so that it outlives the address.
      if (buffer !== this.#shared) this.#sharedAddress = addressOf(buffer);
      this.#shared = buffer;
      this.#next = this.#sharedAddress + byteOffset;
    } else {
      this.#copy.u8.set(payload);
      this.#next = this.#copy.address;
    }
  }

  receive(address: number, bytes: number): void {
    copyMemory(address, this.#next, bytes);
    this.#next += bytes;
  }

  receiveRuns(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) this.receive(runs.addresses[run], runs.lengths[run]);
  }
}
