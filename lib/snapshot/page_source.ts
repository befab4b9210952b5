/**
 * Single pages of a guest's or heap's memory as it lies in a file: a snapshot, plain or compressed, or
 * a recording. What serves pages on request is built on this. Nothing is loaded in advance: a plain
 * file is read where it is and the kernel keeps what was read; of a compressed one each frame is
 * decompressed once and kept in a bounded cache that all threads of the process share.
 *
 * Every call blocks for as long as reading takes: this is for threads that serve, not for event loops.
 *
 * @module
 */
import { clearMemory, copyMemory } from "../../ffi/libc.ts";
import { FRAME_CACHE_BYTES } from "../limits.ts";
import { PageBitmap, type PageRun } from "../memory/page_bitmap.ts";
import { duplicateDescriptor, OpenedFile } from "../storage/opened_file.ts";
import { allocateFrameCache, FrameCache, type SharedFrameCache } from "./frame_cache.ts";
import type { SnapshotSource } from "./positioned_io.ts";
import { SeekTable, type SharedSeekTable } from "./seek_table.ts";
import { snapshotSource } from "./snapshot_source.ts";
import { SeekableZstdSource } from "./seekable_zstd.ts";

/** Where the pages of a RAM block are. */
export interface PageBlock {
  readonly idstr: string;
  /** Length in bytes, whole pages. */
  readonly bytes: number;
  readonly pageSize: number;
  /** Length in pages. */
  readonly pages: number;
  /** Where page 0 lies in the file's content; page n is `n * pageSize` bytes behind it. */
  readonly pagesOffset: number;
  /** Pages whose content is in the file; all others are zero. */
  readonly present: PageBitmap;
}

/** A block in the form that can be posted to another thread. */
export type SharedPageBlock = Omit<PageBlock, "present"> & { readonly present: SharedArrayBuffer };

/** Pages in the form that can be posted to other threads, which all use them at the same time. */
export interface SharedPages {
  /** Name of the file, for messages. */
  readonly path: string;
  /** Descriptor of the file, open for as long as threads may take it up. */
  readonly fd: number;
  /** Where the frames are of a file that is stored compressed. */
  readonly seekTable: SharedSeekTable | undefined;
  /** Its frames that were decompressed. */
  readonly cache: SharedFrameCache | undefined;
  readonly blocks: readonly SharedPageBlock[];
}

/**
 * Puts the pages of a file together for threads to use.
 *
 * @param file Open for as long as threads may take the pages up.
 * @param cacheBytes Room for frames of a compressed file.
 */
export function sharePages(
  file: Pick<SharedPages, "path" | "fd">,
  seekTable: SharedSeekTable | undefined,
  blocks: readonly PageBlock[],
  cacheBytes: number = FRAME_CACHE_BYTES,
): SharedPages {
  return {
    path: file.path,
    fd: file.fd,
    seekTable,
    cache:
      seekTable === undefined
        ? undefined
        : allocateFrameCache(cacheBytes, new SeekTable(seekTable).frameBytesMax),
    blocks: blocks.map(({ idstr, bytes, pageSize, pages, pagesOffset, present }) => ({
      idstr,
      bytes,
      pageSize,
      pages,
      pagesOffset,
      present: present.buffer,
    })),
  };
}

/** The frames of a compressed file, and where those are that were decompressed. */
interface SharedFrames {
  readonly table: SeekTable;
  readonly cache: FrameCache;
  readonly decompress: (frame: number, address: number) => void;
}

/** See the module comment. Belongs to one thread; has a descriptor of its own. */
export class PageSource implements Disposable {
  /** The blocks, in the order of the file; calls name one by its place here. */
  readonly blocks: readonly PageBlock[];
  readonly #source: SnapshotSource;
  readonly #frames: SharedFrames | undefined;

  /**
   * @param session Ends waits for other threads.
   * @throws {SystemError} when the file cannot be opened again.
   */
  constructor(
    { path, fd, seekTable, cache, blocks }: SharedPages,
    session: { readonly stopping: boolean },
  ) {
    const file = new OpenedFile(path, duplicateDescriptor(path, fd));
    if (seekTable === undefined || cache === undefined) {
      this.#source = snapshotSource(file, undefined);
    } else {
      const table = new SeekTable(seekTable);
      const source = new SeekableZstdSource(file, table);
      this.#source = source;
      this.#frames = {
        table,
        cache: new FrameCache(cache, session),
        decompress: (frame, address) => source.readFrame(frame, address),
      };
    }
    this.blocks = blocks.map((block) => ({
      ...block,
      present: new PageBitmap(block.pages, block.present),
    }));
  }

  /** Whether the content of a page is in the file; otherwise the page is zero. */
  has(block: number, page: number): boolean {
    return this.blocks[block].present.has(page);
  }

  /**
   * The pages that cost nothing more once this one is read: those of its frame in a compressed file,
   * the page itself in any other.
   */
  span(block: number, page: number): PageRun {
    if (this.#frames === undefined) return { start: page, end: page + 1 };
    const { table } = this.#frames;
    const { pagesOffset, pageSize, pages } = this.blocks[block];
    const { offset, bytes } = table.frame(table.indexAt(pagesOffset + page * pageSize));
    const start = Math.ceil((offset - pagesOffset) / pageSize);
    const end = Math.floor((offset + bytes - pagesOffset) / pageSize);
    return {
      start: Math.min(page, Math.max(0, start)),
      end: Math.max(page + 1, Math.min(pages, end)),
    };
  }

  /**
   * Reads pages `first` up to, not including, `end` to `address`; those that are not in the file
   * become zero.
   *
   * @throws {RangeError} for pages outside the block.
   * @throws {StreamError} when the file is damaged or has become shorter.
   * @throws {SystemError} when the disk fails; the next call may succeed.
   */
  read(block: number, first: number, end: number, address: number): void {
    const { present, pageSize, pages, pagesOffset, idstr } = this.blocks[block];
    if (!(first >= 0 && first < end && end <= pages)) {
      throw new RangeError(
        `Cannot read pages ${first} to ${end}: RAM block ${idstr} has ${pages} pages`,
      );
    }
    for (let page = first; page < end;) {
      const isPresent = present.has(page);
      const stop = isPresent ? present.nextClear(page, end) : present.nextSet(page, end);
      const target = address + (page - first) * pageSize;
      const bytes = (stop - page) * pageSize;
      if (isPresent) this.#read(target, bytes, pagesOffset + page * pageSize);
      else clearMemory(target, bytes);
      page = stop;
    }
  }

  /** Closes the descriptor. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#frames?.cache.release();
    this.#source[Symbol.dispose]();
  }

  #read(address: number, bytes: number, offset: number): void {
    if (this.#frames === undefined) return this.#source.read(address, bytes, offset);
    const { table, cache, decompress } = this.#frames;
    for (let at = offset; at < offset + bytes;) {
      const index = table.indexAt(at);
      const frame = table.frame(index);
      const stop = Math.min(offset + bytes, frame.offset + frame.bytes);
      const content = cache.use(index, decompress);
      copyMemory(address + (at - offset), content + (at - frame.offset), stop - at);
      at = stop;
    }
  }
}
