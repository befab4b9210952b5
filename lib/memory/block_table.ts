/**
 * The RAM blocks of a session as channel threads see them: names and addresses in shared memory,
 * read once per thread and then plain numbers on the page path.
 *
 * A receiver learns its blocks only when its channels are already running. They stop at the sync of
 * the setup section until the table is complete, so it is written by one thread and read later.
 *
 * @module
 */
import { allocateShared } from "../../ffi/arena.ts";
import { touchMemory } from "../../ffi/libc.ts";
import { LimitError } from "../errors.ts";
import { BLOCKS_MAX, SEGMENTS_MAX } from "../limits.ts";
import { PageBitmap } from "./page_bitmap.ts";
import type { FilePlace } from "../storage/opened_file.ts";
import type { RamBlock } from "./ram_block.ts";
import type { WireBlock } from "../wire/block_id.ts";

/*
 * Table layout, host byte order:
 *
 *      0  u32 number of blocks; written last, pairs with the load in `refresh()`
 *      4  u32 1 = arriving pages are collected in the cache; written by the main thread
 *     64  BLOCKS_MAX records of 336 bytes
 *           0 f64 pages             8 f64 pages per segment (a power of two, or more than pages)
 *          16 u32 page size        20 u32 first segment     24 u32 segments
 *          28 u32 1 = memory was zero at the start
 *          32 f64 byte offset of the received bitmap
 *          40 u32 id bytes         64 id string, NUL padded to 256
 *          44 u32 segments of the twin, 0 = none; they follow the block's own
 *          48 f64 pages per segment of the twin
 *          56 u32 1 = the twin was zero at the start
 *          60 u32 1 = pages are touched before system calls
 *         320 u32 1 = the block lies in a file     324 i32 its descriptor
 *         328 f64 byte offset of the block in the file
 *    then  SEGMENTS_MAX f64 addresses
 */
const RECORDS_AT = 64;
const RECORD_BYTES = 336;
const SEGMENTS_AT = RECORDS_AT + BLOCKS_MAX * RECORD_BYTES;
const TABLE_BYTES = SEGMENTS_AT + SEGMENTS_MAX * 8;

/** Where the pages of a block lie; `bases` are segment addresses. */
export interface PageLayout {
  readonly pageSize: number;
  readonly segmentPages: number;
  readonly bases: Float64Array;
}

/**
 * The other copy of a block: guest memory when the block itself is a receiver's cache, the shadow
 * when changes are found by comparison.
 */
export interface TableTwin extends PageLayout {
  readonly zeroed: boolean;
  /** Pages in which block and twin differ, or may. */
  readonly dirty: PageBitmap;
  /** {@linkcode BlockTable.collecting} of the table. */
  readonly collecting: boolean;
}

/** One block on the page path. All numbers are read once. */
export interface TableBlock extends WireBlock, PageLayout {
  readonly zeroed: boolean;
  /** Where the pages are to be read, instead of at their addresses. */
  readonly file: FilePlace | undefined;
  /** See {@linkcode RamBlock.touchFirst}. */
  readonly touchFirst: boolean;
  /** The second copy of the block, where there is one. */
  readonly twin: TableTwin | undefined;
  /** Pages that have arrived at least once. */
  readonly received: PageBitmap;
}

/** The two buffers of a table, to attach in another thread. */
export interface BlockTableHandle {
  readonly table: SharedArrayBuffer;
  readonly received: SharedArrayBuffer;
}

/**
 * What the table keeps of a block. One without segments has no memory here, only a name and a length,
 * which is all that is needed where packets only pass.
 */
type TableEntry = Pick<
  RamBlock,
  "idstr" | "bytes" | "pages" | "pageSize" | "segments" | "segmentBytes" | "zeroed"
> & { readonly file?: FilePlace | undefined; readonly touchFirst?: boolean };

/** See the module comment. */
export class BlockTable {
  readonly handle: BlockTableHandle;
  readonly #view: DataView;
  readonly #count: Int32Array;
  readonly #collecting: Int32Array;
  #blocks: TableBlock[] = [];
  #segmentsUsed = 0;
  #receivedUsed = 0;

  /**
   * @param source A handle to attach to, or the most bytes of RAM a new table must describe, twins
   * counted; bitmaps are reserved for that much (unused parts cost no memory).
   */
  constructor(source: BlockTableHandle | number) {
    this.handle =
      typeof source === "number"
        ? {
            table: new SharedArrayBuffer(TABLE_BYTES),
            received: allocateShared(
              Math.ceil(source / 4096 / 64) * 8 + BLOCKS_MAX * 16,
              "the bitmaps of received pages",
            ),
          }
        : source;
    this.#view = new DataView(this.handle.table);
    this.#count = new Int32Array(this.handle.table, 0, 1);
    this.#collecting = new Int32Array(this.handle.table, 4, 1);
    this.refresh();
  }

  /** The blocks in order of their index. */
  get blocks(): readonly TableBlock[] {
    return this.#blocks;
  }

  /**
   * Whether pages that arrive in a cache only are marked there, to be applied all at once later;
   * otherwise they are copied on to the twin as they come. Changed while no page is on its way.
   */
  get collecting(): boolean {
    return Atomics.load(this.#collecting, 0) !== 0;
  }

  set collecting(on: boolean) {
    Atomics.store(this.#collecting, 0, on ? 1 : 0);
  }

  /**
   * Adds a block. Only the thread that made the table may do so, and only while no page of the
   * block is on its way. The caller keeps `block` and `twin`, which has the same length and page
   * size, alive as long as any thread uses the table.
   *
   * @throws {LimitError} when the table is full.
   */
  add(block: TableEntry, twin?: TableEntry): TableBlock {
    const index = this.#blocks.length;
    const segments = [...block.segments, ...(twin?.segments ?? [])];
    const bitmapBytes = PageBitmap.bytesFor(block.pages) * (twin === undefined ? 1 : 2);
    if (
      index >= BLOCKS_MAX ||
      this.#segmentsUsed + segments.length > SEGMENTS_MAX ||
      this.#receivedUsed + bitmapBytes > this.handle.received.byteLength
    ) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_BLOCKS",
        `Cannot add RAM block ${block.idstr}: the table holds ${index} blocks and has no room for ${block.bytes} bytes more`,
      );
    }
    const at = RECORDS_AT + index * RECORD_BYTES;
    const idBytes = new TextEncoder().encode(block.idstr);
    this.#view.setFloat64(at, block.pages, true);
    this.#view.setFloat64(at + 8, block.segmentBytes / block.pageSize, true);
    this.#view.setUint32(at + 16, block.pageSize, true);
    this.#view.setUint32(at + 20, this.#segmentsUsed, true);
    this.#view.setUint32(at + 24, block.segments.length, true);
    this.#view.setUint32(at + 28, block.zeroed ? 1 : 0, true);
    this.#view.setFloat64(at + 32, this.#receivedUsed, true);
    this.#view.setUint32(at + 40, idBytes.byteLength, true);
    new Uint8Array(this.handle.table, at + 64, 256).set(idBytes);
    if (twin !== undefined) {
      this.#view.setUint32(at + 44, twin.segments.length, true);
      this.#view.setFloat64(at + 48, twin.segmentBytes / twin.pageSize, true);
      this.#view.setUint32(at + 56, twin.zeroed ? 1 : 0, true);
    }
    if (block.touchFirst === true) this.#view.setUint32(at + 60, 1, true);
    if (block.file !== undefined) {
      this.#view.setUint32(at + 320, 1, true);
      this.#view.setInt32(at + 324, block.file.fd, true);
      this.#view.setFloat64(at + 328, block.file.offset, true);
    }
    for (const segment of segments) {
      this.#view.setFloat64(SEGMENTS_AT + this.#segmentsUsed++ * 8, segment.address, true);
    }
    this.#receivedUsed += bitmapBytes;
    Atomics.store(this.#count, 0, index + 1);
    this.refresh();
    return this.#blocks[index];
  }

  /** Reads blocks that were added since the last look. */
  refresh(): void {
    for (let index = this.#blocks.length; index < Atomics.load(this.#count, 0); index++) {
      this.#blocks.push(this.#read(index));
    }
  }

  /** The block of that name, if there is one. */
  find(idstr: string): TableBlock | undefined {
    return this.#blocks.find((block) => block.idstr === idstr);
  }

  #read(index: number): TableBlock {
    const at = RECORDS_AT + index * RECORD_BYTES;
    const pages = this.#view.getFloat64(at, true);
    const idBytes = new Uint8Array(
      this.handle.table,
      at + 64,
      this.#view.getUint32(at + 40, true),
    ).slice();
    return {
      index,
      idstr: new TextDecoder("utf-8", { ignoreBOM: true }).decode(idBytes),
      idBytes,
      pages,
      pageSize: this.#view.getUint32(at + 16, true),
      segmentPages: this.#view.getFloat64(at + 8, true),
      bases: new Float64Array(
        this.handle.table,
        SEGMENTS_AT + this.#view.getUint32(at + 20, true) * 8,
        this.#view.getUint32(at + 24, true),
      ),
      zeroed: this.#view.getUint32(at + 28, true) === 1,
      received: new PageBitmap(pages, this.handle.received, this.#view.getFloat64(at + 32, true)),
      file:
        this.#view.getUint32(at + 320, true) === 0
          ? undefined
          : {
              fd: this.#view.getInt32(at + 324, true),
              offset: this.#view.getFloat64(at + 328, true),
            },
      touchFirst: this.#view.getUint32(at + 60, true) === 1,
      twin: this.#readTwin(at, pages),
    };
  }

  #readTwin(at: number, pages: number): TableTwin | undefined {
    const segments = this.#view.getUint32(at + 44, true);
    if (segments === 0) return undefined;
    const first = this.#view.getUint32(at + 20, true) + this.#view.getUint32(at + 24, true);
    const bitmapAt = this.#view.getFloat64(at + 32, true) + PageBitmap.bytesFor(pages);
    const collecting = this.#collecting;
    return {
      pageSize: this.#view.getUint32(at + 16, true),
      segmentPages: this.#view.getFloat64(at + 48, true),
      bases: new Float64Array(this.handle.table, SEGMENTS_AT + first * 8, segments),
      zeroed: this.#view.getUint32(at + 56, true) === 1,
      dirty: new PageBitmap(pages, this.handle.received, bitmapAt),
      get collecting() {
        return Atomics.load(collecting, 0) !== 0;
      },
    };
  }
}

/** Address of a page that is known to be inside the block. */
export function pageAddress(block: PageLayout, page: number): number {
  if (block.bases.length === 1) return block.bases[0] + page * block.pageSize;
  const segment = Math.floor(page / block.segmentPages);
  return block.bases[segment] + (page - segment * block.segmentPages) * block.pageSize;
}

/** Brings in pages `pages[first]` up to, not including, `pages[end]`, where system calls would not. */
export function touchPages(
  block: PageLayout & { readonly touchFirst: boolean },
  pages: Uint32Array,
  first: number,
  end: number,
): void {
  if (!block.touchFirst) return;
  for (let index = first; index < end; index++) touchMemory(pageAddress(block, pages[index]));
}
