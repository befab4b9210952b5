/**
 * Method zlib: one zlib stream per channel for the whole migration, sync-flushed once per packet and
 * never finished (wire format, section 7.2). Since it has no end it has no checksum either, and is
 * just a two-byte header followed by raw deflate.
 *
 * A compressor may look at its input more than once, so a page that changes meanwhile could tear the
 * stream, or damage a later page that refers back to it. Pages are copied first, as in QEMU.
 *
 * Pages that cannot be compressed become stored blocks, which costs a copy. A compressor does not
 * know of them, so after such blocks it starts with an empty history.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { PACKET_PAYLOAD_BYTES, PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import {
  asCodecError,
  codecError,
  overflowError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";
import {
  checkZlibHeader,
  STORED_HEADER_BYTES,
  writeStoredHeader,
  writeZlibHeader,
  ZLIB_HEADER_BYTES,
} from "./deflate_container.ts";
import type { StreamCompressor, StreamDecompressor } from "./engine.ts";
import { EntropySampler } from "./entropy_sampler.ts";

/** Bytes compressed by one call: all of a packet, since igzip saves and restores much for each call. */
const COPY_BYTES = PACKET_PAYLOAD_BYTES;

/** Bytes judged compressible or not at a time; a stored block can hold them. */
const PIECE_BYTES = 32_768;

/** Fewer incompressible bytes than this are not worth the history that storing them costs. */
const STORE_BYTES_MIN = 16_384;

const WINDOW_BITS = 15;

/** See the module comment. */
export class ZlibEncoder implements PageEncoder {
  readonly #stream: StreamCompressor;
  readonly #pageSize: number;
  readonly #stores: boolean;
  readonly #sampler = new EntropySampler();
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);
  readonly #copy = new Arena(COPY_BYTES);
  /** Bytes of output so far, in this packet. */
  #filled = 0;
  /** Bytes copied and not yet compressed. */
  #copied = 0;
  #started = false;
  /** Whether the reader has seen blocks that the compressor does not know of. */
  #stale = false;
  #nextLevel: number | undefined;

  /**
   * @param stream Owned by the encoder from now on.
   * @param pageSize In bytes.
   * @param stores Whether incompressible pages may go past the compressor.
   */
  constructor(stream: StreamCompressor, pageSize: number, stores: boolean) {
    this.#stream = stream;
    this.#pageSize = pageSize;
    this.#stores = stores;
  }

  encode(runs: PageRuns, payload: IovecList): number {
    this.#filled = this.#started ? 0 : this.#writeHeader();
    if (this.#nextLevel !== undefined) this.#stream.reset(this.#nextLevel);
    this.#nextLevel = undefined;
    for (let run = 0; run < runs.count; run++) {
      const address = runs.addresses[run];
      const length = runs.lengths[run];
      for (let done = 0; done < length; done += PIECE_BYTES) {
        const bytes = Math.min(PIECE_BYTES, length - done);
        if (this.#stores && this.#shouldStore(address + done, bytes)) {
          this.#store(address + done, bytes);
        } else {
          this.#add(address + done, bytes);
        }
      }
    }
    this.#compress(true);
    payload.append(this.#output.address, this.#filled);
    return this.#filled;
  }

  setLevel(level: number): void {
    this.#nextLevel = level;
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }

  #writeHeader(): number {
    this.#started = true;
    writeZlibHeader(this.#output.u8, 0, WINDOW_BITS);
    return ZLIB_HEADER_BYTES;
  }

  #shouldStore(address: number, bytes: number): boolean {
    const fewBytes = bytes < STORE_BYTES_MIN;
    if (fewBytes && !(this.#stale && this.#copied === 0)) return false;
    const step = Math.min(bytes, this.#pageSize);
    for (let page = 0; page < bytes; page += step) {
      if (!this.#sampler.isIncompressible(address + page, step)) return false;
    }
    return true;
  }

  #store(address: number, bytes: number): void {
    this.#compress(true);
    const end = this.#filled + STORED_HEADER_BYTES + bytes;
    if (end > PAYLOAD_BYTES_MAX) throw overflowError();
    writeStoredHeader(this.#output.u8, this.#filled, bytes, false);
    copyMemory(this.#output.address + this.#filled + STORED_HEADER_BYTES, address, bytes);
    this.#filled = end;
    this.#stale = true;
  }

  #add(address: number, bytes: number): void {
    if (this.#copied + bytes > COPY_BYTES) this.#compress(false);
    copyMemory(this.#copy.address + this.#copied, address, bytes);
    this.#copied += bytes;
  }

  #compress(flush: boolean): void {
    const stream = this.#stream;
    if (this.#copied === 0) return;
    if (this.#stale) stream.reset();
    this.#stale = false;
    const room = PAYLOAD_BYTES_MAX - this.#filled;
    stream.setInput(this.#copy.address, this.#copied);
    stream.setOutput(this.#output.address + this.#filled, room);
    stream.compress(flush);
    if (stream.inputLeft > 0 || stream.outputLeft === 0) throw overflowError();
    this.#filled += room - stream.outputLeft;
    this.#copied = 0;
  }
}

/** See the module comment. */
export class ZlibDecoder implements PageDecoder {
  readonly #stream: StreamDecompressor;
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  readonly #spare = new Arena(1);
  #started = false;

  /** @param stream Owned by the decoder from now on. */
  constructor(stream: StreamDecompressor) {
    this.#stream = stream;
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    source.receive(this.#input.address, payloadBytes);
    try {
      this.#inflate(runs, payloadBytes);
    } catch (error) {
      throw asCodecError("zlib", error);
    }
  }

  #inflate(runs: PageRuns, payloadBytes: number): void {
    const stream = this.#stream;
    const headerBytes = this.#started ? 0 : ZLIB_HEADER_BYTES;
    if (payloadBytes <= headerBytes) throw codecError("zlib", "it ends before its pages are full");
    if (!this.#started) checkZlibHeader("zlib", this.#input.u8, 0);
    this.#started = true;
    stream.setInput(this.#input.address + headerBytes, payloadBytes - headerBytes);
    for (let run = 0; run < runs.count; run++) {
      stream.setOutput(runs.addresses[run], runs.lengths[run]);
      stream.decompress();
      if (stream.outputLeft > 0) throw codecError("zlib", "it ends before its pages are full");
    }
    // The flush marker is still unread; a byte of output here would be a byte too many.
    stream.setOutput(this.#spare.address, 1);
    stream.decompress();
    if (stream.outputLeft === 0 || stream.inputLeft > 0) {
      throw codecError("zlib", "it holds more than its pages");
    }
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}
