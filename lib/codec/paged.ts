/**
 * Methods qpl and uadk: every page is compressed on its own, behind one length per page (wire format,
 * sections 7.4 and 7.5). A page that does not get smaller travels raw, straight from and to guest
 * memory.
 *
 * Back-references never reach farther than 4 KiB, because the accelerators have no larger window. A
 * page is compressed from a copy: it may change meanwhile, and a compressor that reads a byte twice
 * and finds two values may write what is no deflate stream.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { PACKET_PAGES_MAX, PACKET_PAYLOAD_BYTES } from "../limits.ts";
import { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import {
  asCodecError,
  codecError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";
import {
  checkZlibHeader,
  writeZlibHeader,
  ZLIB_HEADER_BYTES,
  ZLIB_TRAILER_BYTES,
} from "./deflate_container.ts";
import type { Checksums, PageCompressor, PageDecompressor } from "./engine.ts";
import { EntropySampler } from "./entropy_sampler.ts";

/** Farthest back-reference as a power of two. */
export const PAGED_WINDOW_BITS = 12;

const LENGTH_BYTES = 4;

/** The container around each page: nothing for qpl, a zlib header and Adler-32 for uadk. */
export interface PageContainer {
  /** Method name, for errors. */
  readonly method: string;
  /** Absent: raw deflate. */
  readonly zlib?: Checksums;
}

/** See the module comment. */
export class PagedEncoder implements PageEncoder {
  readonly #container: PageContainer;
  readonly #headerBytes: number;
  readonly #trailerBytes: number;
  readonly #pageSize: number;
  readonly #sampler = new EntropySampler();
  readonly #lengths = new Arena(PACKET_PAGES_MAX * LENGTH_BYTES);
  readonly #copy = new Arena(PACKET_PAYLOAD_BYTES);
  readonly #output = new Arena(PACKET_PAYLOAD_BYTES);
  readonly #addresses = new Float64Array(PACKET_PAGES_MAX);
  readonly #submitted = new Uint8Array(PACKET_PAGES_MAX);
  readonly #makeCompressor: (level: number) => PageCompressor;
  /** Absent at level 0. */
  #compressor: PageCompressor | undefined;

  /**
   * @param compressor Makes the compressor of a level above 0; what it makes is the encoder's.
   * @param level 0 sends every page raw.
   */
  constructor(
    container: PageContainer,
    pageSize: number,
    level: number,
    compressor: (level: number) => PageCompressor,
  ) {
    this.#container = container;
    this.#headerBytes = container.zlib === undefined ? 0 : ZLIB_HEADER_BYTES;
    this.#trailerBytes = container.zlib === undefined ? 0 : ZLIB_TRAILER_BYTES;
    this.#pageSize = pageSize;
    this.#makeCompressor = compressor;
    // Touched now: a page fault inside an accelerator costs more than all of this.
    this.#copy.u8.fill(0);
    this.#output.u8.fill(0);
    this.setLevel(level);
  }

  setLevel(level: number): void {
    this.#compressor?.[Symbol.dispose]();
    this.#compressor = undefined;
    if (level > 0) this.#compressor = this.#makeCompressor(level);
  }

  encode(runs: PageRuns, payload: IovecList): number {
    const pages = this.#submit(runs);
    payload.append(this.#lengths.address, pages * LENGTH_BYTES);
    let total = pages * LENGTH_BYTES;
    // Neighbours in memory, such as raw pages of one run, share an entry.
    let start = 0;
    let end = 0;
    for (let page = 0; page < pages; page++) {
      const length = this.#collect(page);
      this.#lengths.view.setUint32(page * LENGTH_BYTES, length);
      total += length;
      const raw = length === this.#pageSize;
      const address = raw ? this.#addresses[page] : this.#output.address + page * this.#pageSize;
      if (address !== end) {
        if (end > start) payload.append(start, end - start);
        start = address;
      }
      end = address + length;
    }
    payload.append(start, end - start);
    return total;
  }

  [Symbol.dispose](): void {
    this.#compressor?.[Symbol.dispose]();
  }

  /** Starts every page that is worth it; returns the number of pages. */
  #submit(runs: PageRuns): number {
    const pageSize = this.#pageSize;
    const capacity = pageSize - 1 - this.#headerBytes - this.#trailerBytes;
    let page = 0;
    for (let run = 0; run < runs.count; run++) {
      const end = runs.addresses[run] + runs.lengths[run];
      for (let address = runs.addresses[run]; address < end; address += pageSize) {
        const compressor = this.#compressor;
        const raw = compressor === undefined || this.#sampler.isIncompressible(address, pageSize);
        this.#addresses[page] = address;
        this.#submitted[page] = raw ? 0 : 1;
        if (!raw) {
          const at = page * pageSize;
          copyMemory(this.#copy.address + at, address, pageSize);
          const to = this.#output.address + at + this.#headerBytes;
          compressor.submit(page, this.#copy.address + at, pageSize, to, capacity);
        }
        page++;
      }
    }
    return page;
  }

  /** Length of a page in the payload. */
  #collect(page: number): number {
    if (this.#submitted[page] === 0) return this.#pageSize;
    const length = this.#compressor?.collect(page) ?? 0;
    if (length === 0) return this.#pageSize;
    const { zlib } = this.#container;
    if (zlib !== undefined) {
      const at = page * this.#pageSize;
      writeZlibHeader(this.#output.u8, at, PAGED_WINDOW_BITS);
      const sum = zlib.adler32(this.#copy.address + at, this.#pageSize);
      this.#output.view.setUint32(at + this.#headerBytes + length, sum);
    }
    return this.#headerBytes + length + this.#trailerBytes;
  }
}

/** See the module comment. */
export class PagedDecoder implements PageDecoder {
  readonly #container: PageContainer;
  readonly #pageSize: number;
  readonly #decompressor: PageDecompressor;
  readonly #lengths = new Arena(PACKET_PAGES_MAX * LENGTH_BYTES);
  readonly #input = new Arena(PACKET_PAYLOAD_BYTES);
  readonly #addresses = new Float64Array(PACKET_PAGES_MAX);
  /** Where the bytes of each page go, raw pages to their place, others to the input. */
  readonly #pieces = new PageRuns(PACKET_PAGES_MAX);
  /** Whether a page may come twice in the packet in hand: then all go one after the other. */
  #inOrder = false;

  /** @param decompressor Owned by the decoder from now on. */
  constructor(container: PageContainer, pageSize: number, decompressor: PageDecompressor) {
    this.#container = container;
    this.#pageSize = pageSize;
    this.#decompressor = decompressor;
    this.#input.u8.fill(0);
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    const pages = runs.bytes / this.#pageSize;
    const headBytes = pages * LENGTH_BYTES;
    if (payloadBytes <= headBytes) {
      throw this.#error(`${payloadBytes} bytes cannot hold ${pages} lengths and their pages`);
    }
    source.receive(this.#lengths.address, headBytes);
    this.#locate(runs);
    this.#plan(pages, payloadBytes - headBytes);
    source.receiveRuns(this.#pieces);
    try {
      this.#inflate(pages);
    } catch (error) {
      throw asCodecError(this.#container.method, error);
    }
  }

  [Symbol.dispose](): void {
    this.#decompressor[Symbol.dispose]();
  }

  #locate(runs: PageRuns): void {
    let page = 0;
    let last = 0;
    this.#inOrder = false;
    for (let run = 0; run < runs.count; run++) {
      // Sources send pages in the order of their memory; only where one goes back can it repeat one.
      if (runs.addresses[run] < last) this.#inOrder = true;
      last = runs.addresses[run] + runs.lengths[run];
      for (let address = runs.addresses[run]; address < last; address += this.#pageSize) {
        this.#addresses[page++] = address;
      }
    }
  }

  /** Checks every length before a byte is read, and decides where the bytes go. */
  #plan(pages: number, dataBytes: number): void {
    const pieces = this.#pieces;
    let total = 0;
    let end = -1;
    pieces.count = 0;
    for (let page = 0; page < pages; page++) {
      const length = this.#length(page);
      if (length === 0 || length > this.#pageSize) {
        throw this.#error(`page ${page} has ${length} bytes, must be 1 to ${this.#pageSize}`);
      }
      const raw = length === this.#pageSize && !this.#inOrder;
      const address = raw ? this.#addresses[page] : this.#inputOf(page);
      if (address === end) {
        pieces.lengths[pieces.count - 1] += length;
      } else {
        pieces.addresses[pieces.count] = address;
        pieces.lengths[pieces.count] = length;
        pieces.count++;
      }
      end = address + length;
      total += length;
    }
    if (total !== dataBytes) {
      throw this.#error(`its pages have ${total} bytes, the packet has ${dataBytes}`);
    }
    pieces.bytes = total;
  }

  #inflate(pages: number): void {
    if (this.#inOrder) return this.#inflateInOrder(pages);
    for (let page = 0; page < pages; page++) this.#submit(page);
    for (let page = 0; page < pages; page++) this.#collect(page);
  }

  /** Of a page that comes twice the last content stays, as with every other method. */
  #inflateInOrder(pages: number): void {
    for (let page = 0; page < pages; page++) {
      if (this.#length(page) === this.#pageSize) {
        copyMemory(this.#addresses[page], this.#inputOf(page), this.#pageSize);
        continue;
      }
      this.#submit(page);
      this.#collect(page);
    }
  }

  #submit(page: number): void {
    const { zlib, method } = this.#container;
    const pageSize = this.#pageSize;
    const around = zlib === undefined ? 0 : ZLIB_HEADER_BYTES + ZLIB_TRAILER_BYTES;
    const before = zlib === undefined ? 0 : ZLIB_HEADER_BYTES;
    const length = this.#length(page);
    if (length === pageSize) return;
    if (zlib !== undefined) {
      if (length <= around) throw codecError(method, `page ${page} is too short for zlib`);
      checkZlibHeader(method, this.#input.u8, page * pageSize);
    }
    const from = this.#inputOf(page) + before;
    this.#decompressor.submit(page, from, length - around, this.#addresses[page], pageSize);
  }

  #collect(page: number): void {
    const { zlib } = this.#container;
    const pageSize = this.#pageSize;
    const length = this.#length(page);
    if (length === pageSize) return;
    const got = this.#decompressor.collect(page);
    if (got !== pageSize) {
      throw this.#error(`page ${page} decodes to ${got} bytes, must be ${pageSize}`);
    }
    if (zlib === undefined) return;
    const trailer = page * pageSize + length - ZLIB_TRAILER_BYTES;
    if (zlib.adler32(this.#addresses[page], pageSize) !== this.#input.view.getUint32(trailer)) {
      throw this.#error(`page ${page} has another Adler-32 than its trailer`);
    }
  }

  #length(page: number): number {
    return this.#lengths.view.getUint32(page * LENGTH_BYTES);
  }

  #inputOf(page: number): number {
    return this.#input.address + page * this.#pageSize;
  }

  #error(reason: string): Error {
    return codecError(this.#container.method, reason);
  }
}
