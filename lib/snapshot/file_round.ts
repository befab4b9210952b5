/**
 * One pass of all channels over the pages of a file. Blocks are cut into windows of at most 1 MiB
 * that lie in one piece of memory, hence every run of pages in a window is one piece of memory and
 * one piece of the file. Channels take stretches of windows from a shared counter: unlike packets,
 * jobs of a file are all known when a pass begins, so nobody has to hand them out and nobody waits.
 * A stretch is a share of what is left: long at first, since a file that is read in sequence is one
 * that the kernel reads ahead of, and short in the end, so that all channels end together.
 *
 * @module
 */
import { touchMemory } from "../../ffi/libc.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { FilePlace } from "../storage/opened_file.ts";
import type { Segment } from "../memory/block_memory.ts";
import type { SharedRamBlock } from "../memory/ram_block.ts";

/** A block of RAM with its place in a file, in the form that can be posted to a channel. */
export interface SharedFileBlock {
  readonly ram: SharedRamBlock;
  /** File offset of page 0. */
  readonly pagesOffset: number;
  /** Bits of the pages to work on in a pass; written between passes, read by channels. */
  readonly pending: SharedArrayBuffer;
  /** Bits of the pages whose content is in the file; a writer's channels change them. */
  readonly present: SharedArrayBuffer;
}

/** A block as a channel works on it. */
export class FileBlock {
  readonly idstr: string;
  readonly pageSize: number;
  readonly pages: number;
  readonly pagesOffset: number;
  readonly pending: PageBitmap;
  readonly present: PageBitmap;
  /** Whether its memory was zero before anything was read into it. */
  readonly zeroed: boolean;
  /** Where the block itself lies in a file; undefined when its memory is read. */
  readonly source: FilePlace | undefined;
  /** See {@linkcode RamBlock.touchFirst}. */
  readonly touchFirst: boolean;
  /** Windows of this block. */
  readonly windows: number;
  /** Pages of every window but the last. */
  readonly windowPages: number;
  readonly #segments: readonly Segment[];
  readonly #segmentPages: number;

  constructor(shared: SharedFileBlock) {
    const { pageSize, segments, zeroed } = shared.ram;
    const segmentBytes = segments[0].bytes;
    this.idstr = shared.ram.idstr;
    this.source = shared.ram.file;
    this.touchFirst = shared.ram.residency?.systemCallsWait === false;
    this.pageSize = pageSize;
    this.pages = segments.reduce((sum, { bytes }) => sum + bytes, 0) / pageSize;
    this.pagesOffset = shared.pagesOffset;
    this.pending = new PageBitmap(this.pages, shared.pending);
    this.present = new PageBitmap(this.pages, shared.present);
    this.zeroed = zeroed;
    // Several segments are a power of two long each, so that windows do not cross their borders.
    const windowBytes =
      segments.length === 1 ? FILE_JOB_BYTES : Math.min(FILE_JOB_BYTES, segmentBytes);
    this.windowPages = windowBytes / pageSize;
    this.windows = Math.ceil(this.pages / this.windowPages);
    this.#segments = segments;
    this.#segmentPages = segmentBytes / pageSize;
  }

  /** Address of a page of the block; the rest of its window follows. */
  addressOf(page: number): number {
    const segment = this.#segments.length === 1 ? 0 : Math.floor(page / this.#segmentPages);
    return this.#segments[segment].address + (page - segment * this.#segmentPages) * this.pageSize;
  }

  /** Brings in pages of a window for which system calls would not wait. */
  touch(first: number, end: number): void {
    if (!this.touchFirst) return;
    for (let page = first; page < end; page++) touchMemory(this.addressOf(page));
  }
}

const CURSOR = 0; // next window over all blocks; channels move it, the coordinator resets between passes
const FINISHED = 16; // windows that are done; channels add, the coordinator resets between passes
const WINDOWS = 17; // windows of the pass; written by the coordinator between passes
const CHANNELS = 18; // channels that may share them; written by the coordinator between passes
const STRETCH_MAX = 19; // most windows in a stretch; written by the coordinator between passes
const DIRECT_REFUSED = 32; // errno of a refused O_DIRECT, 0 = none; first refusal wins

/** The shared words of a pass. Each thread makes its own object over the same buffer. */
export class FileRound {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** What is left of the stretch that this thread has taken. */
  #next = 0;
  #end = 0;

  constructor(buffer = new SharedArrayBuffer(256)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /**
   * Starts a new pass; only when the one before is finished and what is pending is marked.
   *
   * @param windows Of all blocks together.
   * @param channels How many may share them; fewer do until the others have started.
   * @param stretchMax Most windows that a channel takes in a row.
   */
  reset(windows: number, channels: number, stretchMax: number): void {
    Atomics.store(this.#words, FINISHED, 0);
    Atomics.store(this.#words, WINDOWS, windows);
    Atomics.store(this.#words, CHANNELS, channels);
    Atomics.store(this.#words, STRETCH_MAX, stretchMax);
    // Last: a channel that is late from the pass before takes windows from here on.
    Atomics.store(this.#words, CURSOR, 0);
  }

  /** Takes the next window; the number of windows when there are none. */
  takeWindow(): number {
    if (this.#next === this.#end) this.#takeStretch();
    return this.#next < this.#end ? this.#next++ : Atomics.load(this.#words, WINDOWS);
  }

  /** Counts a window as done; the channel touches its memory no more. */
  finishWindow(): void {
    Atomics.add(this.#words, FINISHED, 1); // pairs with the load in `finished`
  }

  /** Windows that are done in this pass. */
  get finished(): number {
    return Atomics.load(this.#words, FINISHED);
  }

  /** Remembers that the file system does not want O_DIRECT. */
  refuseDirect(errno: number): void {
    Atomics.compareExchange(this.#words, DIRECT_REFUSED, 0, errno);
  }

  /** Why O_DIRECT was refused, as an errno number; 0 when it was not. */
  get directRefused(): number {
    return Atomics.load(this.#words, DIRECT_REFUSED);
  }

  #takeStretch(): void {
    const windows = Atomics.load(this.#words, WINDOWS);
    const channels = Atomics.load(this.#words, CHANNELS);
    const stretchMax = Atomics.load(this.#words, STRETCH_MAX);
    let first = Atomics.load(this.#words, CURSOR);
    while (first < windows) {
      const share = Math.ceil((windows - first) / channels);
      const end = first + Math.min(share, stretchMax);
      const seen = Atomics.compareExchange(this.#words, CURSOR, first, end);
      if (seen === first) {
        this.#next = first;
        this.#end = end;
        return;
      }
      first = seen;
    }
  }
}
