/**
 * A snapshot, a guest's memory and state in a file of QEMU's mapped-ram format, as an object: what is in it, single pages at random, and all of it by parallel
 * channels. Opening reads headers and bitmaps only, so a lazy restore can start at once.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { Arena } from "../../ffi/arena.ts";
import { LimitError } from "../errors.ts";
import { FILE_JOB_BYTES, PAGE_SIZE_DEFAULT, RECEIVE_BYTES_DEFAULT } from "../limits.ts";
import { checkChannels } from "../session/channel_count.ts";
import { openRegularFile } from "../storage/opened_file.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { RamBlock } from "../memory/ram_block.ts";
import {
  ATTACH_OPTIONS,
  attachBlocks,
  type AttachedRam,
  type AttachOptions,
  type PagedBlocks,
  type PagedFile,
} from "../paging/attached_ram.ts";
import { answerOf } from "../thread/one_answer.ts";
import type { Unstarted } from "../thread/service.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { UUID_BYTES } from "../wire/uuid.ts";
import { FileChannels } from "./file_channels.ts";
import { LOAD_OPTIONS, type LoadOptions } from "./load_options.ts";
import type { FileIndex, IndexJob } from "./index_messages.ts";
import type { SharedFileBlock } from "./file_round.ts";
import {
  deviceStateRange,
  receiveIndex,
  type SnapshotBlock,
  type SnapshotIndex,
} from "./snapshot_index.ts";
import { ChannelLoad, type LoadedRam, type PreparedLoad } from "./prepared_load.ts";
import { sharePages, type SharedPages } from "./page_source.ts";
import { checkOffset, type SnapshotSource } from "./positioned_io.ts";
import type { SnapshotPages } from "./snapshot_pages.ts";
import { snapshotSource } from "./snapshot_source.ts";

/** How a file is opened. */
export interface OpenSnapshotOptions {
  /**
   * Where the stream starts in the file, as in `file:PATH,offset=N`, in bytes. Default 0, which also
   * finds the stream behind what `virsh save` puts in front.
   */
  readonly offset?: number | undefined;
}

const OPEN_OPTIONS = {
  offset: true,
} satisfies OptionNames<OpenSnapshotOptions>;

/**
 * See the module comment. Made by {@linkcode openSnapshot}; dispose it to close the file.
 */
export class Snapshot implements Disposable {
  /** Path as it was given. */
  readonly path: string;
  /** What the file says about itself. */
  readonly index: SnapshotIndex;
  readonly #source: SnapshotSource;
  #scratch: Arena | undefined;

  private constructor(path: string, source: SnapshotSource, index: SnapshotIndex) {
    this.path = path;
    this.index = index;
    this.#source = source;
  }

  /** Opens a file; see {@linkcode openSnapshot}. */
  static async open(path: string, options: OpenSnapshotOptions = {}): Promise<Snapshot> {
    checkOptionNames(OPEN_OPTIONS, options);
    const { offset = 0 } = options;
    const action = `Cannot open ${path}`;
    checkOffset(action, offset);
    const file = openRegularFile(action, path);
    try {
      const { fd } = file;
      const job = { role: "index-reader", path, fd, offset } satisfies Unstarted<IndexJob>;
      const { index, seekTable } = await answerOf<FileIndex>(job);
      return new Snapshot(path, snapshotSource(file, seekTable), receiveIndex(index));
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the file is stored compressed. */
  get compressed(): boolean {
    return this.#source.seekTable !== undefined;
  }

  /** What the file takes as it is stored, in bytes: its length, and what of it is on the disk. */
  storage(): { readonly fileBytes: number; readonly diskBytes: number } {
    const { file } = this.#source;
    return { fileBytes: file.length(), diskBytes: file.facts().diskBytes };
  }

  /** The blocks in the file. */
  get blocks(): readonly SnapshotBlock[] {
    return this.index.blocks;
  }

  /**
   * The block of that name.
   *
   * @throws {RangeError} when there is none.
   */
  block(idstr: string): SnapshotBlock {
    const found = this.blocks.find((block) => block.idstr === idstr);
    if (found !== undefined) return found;
    if (this.index.sharedBlocks.some((block) => block.idstr === idstr)) {
      throw new RangeError(
        `Cannot find RAM block ${idstr}: it is not in ${this.path}, which leaves shared memory out`,
      );
    }
    const names = this.blocks.map((block) => block.idstr).join(", ");
    throw new RangeError(`Cannot find RAM block ${idstr}: ${this.path} has ${names}`);
  }

  /**
   * Reads one page.
   *
   * @param target Memory of at least one page; absent, a new array is made.
   * @returns `target`, or its first page if it is longer.
   */
  readPage(idstr: string, page: number, target?: Uint8Array): Uint8Array {
    const { pageSize } = this.block(idstr);
    const bytes = target?.subarray(0, pageSize) ?? new Uint8Array(pageSize);
    if (bytes.byteLength < pageSize) {
      throw new RangeError(
        `Cannot read page ${page}: the target has ${bytes.byteLength} bytes, must have ${pageSize}`,
      );
    }
    this.readRange(idstr, page * pageSize, bytes);
    return bytes;
  }

  /**
   * Fills `target` with the bytes of a block from `offset` on, which need not be page borders; what
   * is not in the file is zero.
   *
   * @throws {RangeError} outside the block, {StreamError} when the file has become shorter.
   */
  readRange(idstr: string, offset: number, target: Uint8Array): void {
    const block = this.block(idstr);
    const end = offset + target.byteLength;
    if (!Number.isSafeInteger(offset) || offset < 0 || end > block.bytes) {
      throw new RangeError(
        `Cannot read ${target.byteLength} bytes at ${offset}: RAM block ${idstr} has ${block.bytes} bytes`,
      );
    }
    const { present, pageSize } = block;
    const endPage = Math.ceil(end / pageSize);
    for (let at = offset; at < end;) {
      const page = Math.floor(at / pageSize);
      const isPresent = present.has(page);
      const runEnd = isPresent ? present.nextClear(page, endPage) : present.nextSet(page, endPage);
      const stop = Math.min(end, runEnd * pageSize);
      const part = target.subarray(at - offset, stop - offset);
      if (isPresent) this.readFile(block.pagesOffset + at, part);
      else part.fill(0);
      at = stop;
    }
  }

  /**
   * The device state: every byte of the stream behind RAM's last section. It is opaque; only a
   * machine with the same devices can read it. Blocks for as long as reading takes; event loops have
   * `readDeviceState()`.
   *
   * @throws {LimitError} when it does not fit an array.
   */
  deviceState(): Uint8Array {
    const { offset, bytes } = deviceStateRange(this.index, this.path);
    const state = new Uint8Array(bytes);
    this.readFile(offset, state);
    return state;
  }

  /**
   * Loads pages into memory by parallel channels.
   *
   * @throws {RangeError} for blocks that do not match, {MultifdError} when loading fails; memory may
   * be filled in part then.
   */
  async load(options: LoadOptions = {}): Promise<LoadedRam> {
    const prepared = this.#startLoad(options);
    try {
      return await prepared.load();
    } finally {
      void prepared[Symbol.asyncDispose](); // the memory is complete and the file may be removed
    }
  }

  /**
   * Does all of {@linkcode load} that can be done before the time that counts: allocates memory,
   * starts the threads and has them open the file.
   *
   * @throws As `load()`.
   *
   * @example
   * ```ts
   * await using prepared = await snapshot.prepareLoad({ channels: 4, prefault: true });
   * const { blocks } = await prepared.load();
   * ```
   */
  async prepareLoad(options: LoadOptions = {}): Promise<PreparedLoad> {
    const prepared = this.#startLoad(options);
    await prepared.ready();
    return prepared;
  }

  /**
   * Makes blocks that can be used at once: a page comes in when it is touched, by whatever thread,
   * and the others behind that. The file must keep its content until all pages are there; see
   * {@linkcode AttachedRam} for what happens otherwise.
   *
   * @throws {RangeError} for blocks that are not in the file.
   * @throws {SystemError} when there is not so much memory.
   */
  async attach(options: AttachOptions = {}): Promise<AttachedRam> {
    checkOptionNames(ATTACH_OPTIONS, options);
    return attachBlocks(this.pagedBlocks(options.blocks), options);
  }

  /** Blocks and their pages, for `attach()` and `servePageFaults()`. */
  pagedBlocks(names?: readonly string[]): PagedBlocks {
    const blocks = names?.map((idstr) => this.block(idstr)) ?? this.blocks;
    const { file, seekTable } = this.#source;
    const source = (own: PagedFile): SnapshotPages => ({
      role: "snapshot-pages",
      pages: sharePages(own, seekTable, blocks),
    });
    return { file, blocks, source };
  }

  /**
   * Everything of the guest that is not memory, for a file or migration with other memory. Blocks for
   * as long as reading takes; event loops have `readGuestState()`.
   *
   * @param devices Its device state, if it was read already.
   */
  guestState(devices = this.deviceState()): GuestState {
    const { configuration, early, ramSectionId, switchoverStart } = this.index;
    const { machine, pageBits, uuid } = configuration;
    return {
      machine,
      pageBits,
      uuid: uuid ?? new Uint8Array(UUID_BYTES),
      validateUuid: uuid !== undefined,
      ramSectionId,
      early,
      switchoverStart,
      devices,
    };
  }

  /**
   * Fills `target` with bytes of the file itself from `offset` on, decompressed if it is stored so.
   *
   * @throws {StreamError} when there are not as many.
   */
  readFile(offset: number, target: Uint8Array): void {
    const scratch = (this.#scratch ??= new Arena(FILE_JOB_BYTES));
    for (let done = 0; done < target.byteLength;) {
      const bytes = Math.min(FILE_JOB_BYTES, target.byteLength - done);
      this.#source.read(scratch.address, bytes, offset + done);
      target.set(scratch.u8.subarray(0, bytes), done);
      done += bytes;
    }
  }

  /**
   * The pages for threads that serve them one by one, see {@linkcode PageSource}. The snapshot must stay
   * open until the last of them has taken them up.
   *
   * @param cacheBytes Room for decompressed frames, all threads together. Default 64 MiB.
   */
  sharePages(cacheBytes?: number): SharedPages {
    const { file, seekTable } = this.#source;
    return sharePages(file, seekTable, this.blocks, cacheBytes);
  }

  /** Closes the file. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }

  #startLoad(options: LoadOptions): ChannelLoad {
    checkOptionNames(LOAD_OPTIONS, options);
    checkChannels(options.channels);
    const targets = this.#targets(options);
    const channels = new FileChannels(
      {
        mode: "read",
        file: this.#source.file,
        seekTable: this.#source.seekTable,
        detectZeroPages: false,
        blocks: targets.map(({ shared }) => shared),
        memory: targets.map(({ ram }) => ram),
        pageSize: targets[0]?.ram.pageSize ?? this.blocks[0]?.pageSize ?? PAGE_SIZE_DEFAULT,
        ramBytes: targets.reduce((sum, { ram }) => sum + ram.bytes, 0),
      },
      options,
    );
    const blocks = targets.map(({ ram }) => ram);
    return new ChannelLoad(blocks, channels, options.onProgress);
  }

  #targets(options: LoadOptions): { ram: RamBlock; shared: SharedFileBlock }[] {
    const { blocks, ramBytesMax = RECEIVE_BYTES_DEFAULT, prefault } = options;
    const wanted = blocks?.map((ram) => ({ ram, block: this.block(ram.idstr) }));
    const { sharedBlocks } = this.index;
    if (wanted === undefined && sharedBlocks.length > 0) {
      const names = sharedBlocks.map(({ idstr }) => idstr).join(", ");
      throw new RangeError(
        `Cannot load all of ${this.path}: shared memory is not in it (${names}), the blocks to load must be given`,
      );
    }
    const total = this.blocks.reduce((sum, { bytes }) => sum + bytes, 0);
    if (wanted === undefined && total > ramBytesMax) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_RAM",
        `Cannot load ${this.path}: it has ${total} bytes of RAM, at most ${ramBytesMax} are allowed`,
      );
    }
    const pairs =
      wanted ??
      this.blocks.map((block) => {
        const { idstr, bytes, pageSize } = block;
        return { ram: RamBlock.allocate(idstr, bytes, { pageSize, prefault }), block };
      });
    // Whatever a caller's memory was when it was made, it may have been used by now.
    const zeroed = wanted === undefined || (options.zeroed ?? false);
    return pairs.map(({ ram, block }) => ({ ram, shared: sharedForReading(ram, block, zeroed) }));
  }
}

function sharedForReading(ram: RamBlock, block: SnapshotBlock, zeroed: boolean): SharedFileBlock {
  if (ram.bytes !== block.bytes || ram.pageSize !== block.pageSize) {
    throw new RangeError(
      `Cannot load RAM block ${ram.idstr}: memory of ${ram.bytes} bytes in pages of ${ram.pageSize}, must be ${block.bytes} in pages of ${block.pageSize}`,
    );
  }
  const pending = new PageBitmap(block.pages);
  pending.setRange(0, block.pages);
  ram.markWritten();
  return {
    ram: { ...ram.share(), zeroed },
    pagesOffset: block.pagesOffset,
    pending: pending.buffer,
    present: block.present.buffer,
  };
}

/**
 * Opens a snapshot, a mapped-ram file as written by QEMU or by this library, and reads its index on a thread of
 * its own. What is opened stays open: whoever gives the name to another file changes nothing here.
 *
 * @throws {SystemError} when it cannot be opened.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe or the like.
 * @throws {StreamError} when it is not a complete snapshot; the code ends with `TRUNCATED`,
 * `MAGIC`, `BITMAP` and so on, `peer` is the path.
 *
 * @example
 * ```ts
 * using file = await openSnapshot("guest.snap");
 * const page = file.readPage("pc.ram", 42);
 * const { blocks } = await file.load({ channels: 4 });
 * ```
 */
export function openSnapshot(path: string, options: OpenSnapshotOptions = {}): Promise<Snapshot> {
  return Snapshot.open(path, options);
}
