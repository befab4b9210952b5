/**
 * A RAM block: a named range of guest memory, addressable by page, and the owner of that memory.
 *
 * JavaScript buffers end at 4 GiB and blocks do not, so a block is a list of segments; allocated
 * ones are a power of two long, hence every page lies in one segment. Threads work with addresses,
 * which are equal everywhere; the block object of the thread that made it keeps them valid.
 *
 * @module
 */
import { checkOptionNames } from "../option_names.ts";
import { viewOfMemory } from "../../ffi/arena.ts";
import { OpenFlag } from "../../ffi/linux.ts";
import { BlockMemory, checkSegments, type FilledMemory, type Segment } from "./block_memory.ts";
import { ImageReader, saveImage } from "../storage/image_file.ts";
import { disposedError } from "../errors.ts";
import { openRegularFile, type FilePlace, type OpenedFile } from "../storage/opened_file.ts";
import { blockIdFault } from "../wire/block_id.ts";
import { PAGE_SIZE_DEFAULT } from "../limits.ts";
import { Residency, type SharedResidency } from "./residency.ts";
import {
  BLOCK_OPTIONS,
  IMAGE_OPTIONS,
  MAP_OPTIONS,
  checkLength,
  type ImageOptions,
  type MapOptions,
  type RamBlockOptions,
} from "./ram_block_options.ts";

/** A block in the form that can be posted to another thread. */
export interface SharedRamBlock {
  readonly idstr: string;
  readonly pageSize: number;
  readonly segments: readonly Segment[];
  readonly zeroed: boolean;
  /** Where a sender reads the block; absent when it reads the segments. */
  readonly file?: FilePlace | undefined;
  /** Whether its pages are there; absent when they are. */
  readonly residency?: SharedResidency | undefined;
}

type FileOptions = MapOptions & { readonly readBySender?: boolean };
let mapFile: (idstr: string, file: OpenedFile, options: FileOptions) => RamBlock; // the class's own
let fillBlock: (idstr: string, pageSize: number, memory: FilledMemory) => RamBlock; // likewise

/**
 * Maps a file that is open; see {@linkcode RamBlock.map}. The file stays the caller's: a sender
 * reads it, by a descriptor of the block's own, since a file that becomes shorter is an error then.
 */
export function mapRamBlock(idstr: string, file: OpenedFile, options: MapOptions): RamBlock {
  return mapFile(idstr, file, { ...options, readBySender: true });
}

/** A block over memory whose pages come in when they are touched. */
export function filledRamBlock(idstr: string, pageSize: number, memory: FilledMemory): RamBlock {
  return fillBlock(idstr, pageSize, memory);
}

/** Blocks that somebody holds; dispose them to let go. */
interface HeldBlocks extends Disposable {
  readonly blocks: readonly RamBlock[];
}

/**
 * See the module comment.
 *
 * @example
 * ```ts
 * const block = RamBlock.allocate("pc.ram", 64 * 1024 * 1024);
 * block.view(0, 4096).fill(7);
 * ```
 */
export class RamBlock implements Disposable {
  /** Name of the block, equal on both sides, at most 255 bytes of UTF-8. */
  readonly idstr: string;
  /** Length in bytes, a multiple of `pageSize`. */
  readonly bytes: number;
  /** Target page size in bytes. */
  readonly pageSize: number;
  /** Length in pages. */
  readonly pages: number;
  readonly #memory: BlockMemory;
  #disposed = false;

  private constructor(idstr: string, pageSize: number, memory: BlockMemory) {
    const fault = blockIdFault(idstr);
    if (fault !== undefined) throw new RangeError(`Cannot make RAM block: its id ${fault}`);
    checkLength(idstr, memory.bytes, pageSize);
    this.bytes = memory.bytes;
    this.pages = this.bytes / pageSize;
    checkSegments(idstr, memory.segments, pageSize);
    this.idstr = idstr;
    this.pageSize = pageSize;
    this.#memory = memory;
  }

  /**
   * Allocates zeroed memory; physical pages are taken on first touch unless `prefault` is set.
   *
   * @throws {RangeError} for an impossible length, page size or id.
   * @throws {SystemError} with errno `ENOMEM` when there is not so much memory.
   */
  static allocate(idstr: string, bytes: number, options: RamBlockOptions = {}): RamBlock {
    checkOptionNames(BLOCK_OPTIONS, options);
    const { pageSize = PAGE_SIZE_DEFAULT, hugePages = true } = options;
    checkLength(idstr, bytes, pageSize);
    const memory = BlockMemory.allocate(bytes, `RAM block ${idstr}`);
    return prepared(new RamBlock(idstr, pageSize, memory), memory, { ...options, hugePages });
  }

  /**
   * Uses the caller's own memory. Several buffers make one block; all but the last must have the
   * same power-of-two length.
   *
   * @throws {RangeError} when the lengths do not allow it.
   */
  static fromBuffer(
    idstr: string,
    buffers: SharedArrayBuffer | readonly SharedArrayBuffer[],
    options: RamBlockOptions = {},
  ): RamBlock {
    checkOptionNames(BLOCK_OPTIONS, options);
    const list = buffers instanceof SharedArrayBuffer ? [buffers] : buffers;
    const memory = BlockMemory.of(list, options.zeroed ?? false);
    return prepared(
      new RamBlock(idstr, options.pageSize ?? PAGE_SIZE_DEFAULT, memory),
      memory,
      options,
    );
  }

  /**
   * Maps a file or device that several processes share: a memfd (`/proc/PID/fd/N`), a file in
   * /dev/shm, guest RAM with `share=on`. Nothing is copied; dispose the block to unmap.
   *
   * The file must keep its length while it is mapped: the kernel ends the process when a page is
   * touched that is no longer there.
   *
   * @param path File to map.
   * @throws {SystemError} when it cannot be opened or mapped.
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe or the like.
   */
  static map(idstr: string, path: string, options: MapOptions = {}): RamBlock {
    checkOptionNames(MAP_OPTIONS, options);
    const flags = options.writable === true ? OpenFlag.RDWR : OpenFlag.RDONLY;
    using file = openRegularFile(`Cannot map ${path}`, path, flags); // the mapping keeps the file
    return RamBlock.#mapFile(idstr, file, { ...options, readBySender: false });
  }

  static #mapFile(idstr: string, file: OpenedFile, options: FileOptions): RamBlock {
    const { pageSize = PAGE_SIZE_DEFAULT, offset = 0, writable = false, zeroed = false } = options;
    const fileBytes = file.length();
    const { bytes = fileBytes - offset } = options;
    checkLength(idstr, bytes, pageSize);
    const action = `Cannot map ${file.path}`;
    if (!(offset >= 0 && offset % pageSize === 0 && offset + bytes <= fileBytes)) {
      throw new RangeError(
        `${action}: ${bytes} bytes at ${offset}, must be whole pages of its ${fileBytes} bytes`,
      );
    }
    const { readBySender = false } = options;
    const range = { offset, bytes, writable, zeroed, readBySender };
    const memory = BlockMemory.map(file, range, action);
    try {
      const block = new RamBlock(idstr, pageSize, memory);
      if (options.prefault) block.prefault(writable);
      return block;
    } catch (error) {
      memory.release();
      throw error;
    }
  }

  /**
   * Allocates a block as long as the file at `path` and reads the file into it, on the runtime's
   * threads. Holes of the file are not read and take no memory.
   *
   * @param path A regular file or a block device; its length is a multiple of the page size.
   * @throws {SystemError} when it cannot be read.
   * @throws {RangeError} for an impossible length, page size or id.
   * @throws {CancelledError} when `signal` is aborted.
   */
  static async fromFile(
    idstr: string,
    path: string,
    options: RamBlockOptions & ImageOptions = {},
  ): Promise<RamBlock> {
    checkOptionNames({ ...BLOCK_OPTIONS, ...IMAGE_OPTIONS }, options);
    const { signal, ...memory } = options;
    using image = new ImageReader(path);
    checkLength(path, image.bytes, options.pageSize ?? PAGE_SIZE_DEFAULT);
    const block = RamBlock.allocate(idstr, image.bytes, memory);
    await image.load(block, signal);
    return block;
  }

  /** Makes a block object over one that another thread owns and keeps alive. */
  static attach(shared: SharedRamBlock): RamBlock {
    const { idstr, pageSize, segments, zeroed, file, residency } = shared;
    const state = residency && new Residency(residency);
    return new RamBlock(idstr, pageSize, BlockMemory.attach(segments, zeroed, file, state));
  }

  /** The memory, in ascending order; all but the last have the same length. */
  get segments(): readonly Segment[] {
    return this.#open().segments;
  }

  /** Where a sender reads the block; undefined when it reads the segments. */
  get file(): FilePlace | undefined {
    return this.#open().file;
  }

  /** Whether the memory can be written to, and so be received into. */
  get writable(): boolean {
    return this.#memory.writable;
  }

  /** The form to post to another thread; this object must outlive its use there. */
  share(): SharedRamBlock {
    return {
      idstr: this.idstr,
      pageSize: this.pageSize,
      segments: this.segments,
      zeroed: this.zeroed,
      file: this.file,
      residency: this.#memory.residency?.shared,
    };
  }

  /** Whether all pages are there; those of `attach()` of a snapshot come in when they are touched. */
  get isResident(): boolean {
    return this.#open().residency?.isResident ?? true;
  }

  /**
   * Whether a system call on its memory may fail with EFAULT because pages are not there. Whoever
   * makes one reads a byte of each page first, which brings it in.
   */
  get touchFirst(): boolean {
    return !this.isResident && this.#memory.residency?.shared.systemCallsWait === false;
  }

  /**
   * Has all pages brought in that are not there, and waits for them. From any thread.
   *
   * @throws {MultifdError} when some cannot be, for example because the snapshot is damaged.
   */
  async resident(): Promise<void> {
    await this.#open().residency?.resident();
  }

  /**
   * Whether the memory is known to be all zero, so that a receiver need not write zero pages: until
   * it has been given away to be written to, by a view, an address or a transfer. Who writes through
   * `segments` calls {@linkcode markWritten}.
   */
  get zeroed(): boolean {
    return this.#memory.zeroed;
  }

  /** Notes that the memory may hold anything from now on. */
  markWritten(): void {
    this.#memory.zeroed = false;
  }

  /** Length of every segment but the last, in bytes. */
  get segmentBytes(): number {
    return this.segments[0].bytes;
  }

  /**
   * Address of byte `offset`; the bytes up to the end of its segment are contiguous.
   *
   * @throws {RangeError} outside the block.
   */
  addressAt(offset: number): number {
    this.#checkRange(offset, 1);
    this.#open().zeroed = false;
    const index = Math.floor(offset / this.segmentBytes);
    return this.segments[index].address + (offset - index * this.segmentBytes);
  }

  /**
   * A view of `bytes` bytes from `offset`, without a copy. A view holds nothing: that of a mapped
   * block must not be used once the block is disposed.
   *
   * @throws {RangeError} outside the block or across a segment border (`segmentBytes`).
   */
  view(offset: number, bytes: number): Uint8Array {
    this.#checkRange(offset, bytes);
    this.#open().zeroed = false;
    const index = Math.floor(offset / this.segmentBytes);
    const segment = this.segments[index];
    const within = offset - index * this.segmentBytes;
    if (within + bytes > segment.bytes) {
      throw new RangeError(
        `Cannot view ${bytes} bytes at ${offset}: the segment ends after ${segment.bytes - within}`,
      );
    }
    return segment.buffer === undefined
      ? viewOfMemory(segment.address + within, bytes)
      : new Uint8Array(segment.buffer, within, bytes);
  }

  /** Views that together cover the block in order, each at most `bytesMax` long. */
  *views(bytesMax = 8 * 1_048_576): Generator<Uint8Array> {
    for (let offset = 0; offset < this.bytes;) {
      const left = this.segmentBytes - (offset % this.segmentBytes);
      const bytes = Math.min(bytesMax, left, this.bytes - offset);
      yield this.view(offset, bytes);
      offset += bytes;
    }
  }

  /**
   * Writes the block to a file, on the runtime's threads: zero pages become holes, and the file
   * appears under its name, replacing an older one, only when all of it is on the device.
   *
   * @throws {SystemError} when writing fails, for example because the disk is full.
   * @throws {CancelledError} when `signal` is aborted.
   */
  async toFile(path: string, options: ImageOptions = {}): Promise<void> {
    checkOptionNames(IMAGE_OPTIONS, options);
    using held = this.hold();
    await saveImage(held, path, options.signal);
  }

  /** Touches all memory, for writing or only for reading, so that later use finds it in place. */
  prefault(forWriting = true): void {
    const errno = this.#open().prefault(forWriting);
    if (errno === undefined) return;
    throw new RangeError(`Cannot prefault RAM block ${this.idstr}: ${errno}`);
  }

  static {
    mapFile = (idstr, file, options) => RamBlock.#mapFile(idstr, file, options);
    fillBlock = (idstr, pageSize, memory) =>
      new RamBlock(idstr, pageSize, BlockMemory.filled(memory));
  }

  /**
   * Another block object over the same memory, for whoever works with it for a while: mapped memory
   * stays until the last object over it has been disposed. Everything in this library that works on
   * blocks, such as a session, a tracker or a writer of files, holds them until it has ended. So a
   * block can be disposed at any moment: work that has begun goes on, and the mapping goes with it.
   *
   * @returns An object to be disposed, in the thread that made it.
   * @throws {MultifdError} with code `ERR_MULTIFD_DISPOSED` when this object was disposed.
   */
  hold(): RamBlock {
    const memory = this.#open();
    const held = new RamBlock(this.idstr, this.pageSize, memory);
    memory.retain();
    return held;
  }

  /**
   * Ends the use of this object: every further access is a `MultifdError` with code
   * `ERR_MULTIFD_DISPOSED`. Mapped memory is unmapped unless somebody still holds it
   * ({@linkcode hold}); other memory is freed when nobody refers to it. Safe to call twice.
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#memory.release();
  }

  #open(): BlockMemory {
    if (this.#disposed) throw disposedError(`RAM block ${this.idstr}`);
    return this.#memory;
  }

  #checkRange(offset: number, bytes: number): void {
    if (!(offset >= 0 && bytes > 0 && offset + bytes <= this.bytes)) {
      throw new RangeError(
        `Cannot access ${bytes} bytes at ${offset}: RAM block ${this.idstr} has ${this.bytes} bytes`,
      );
    }
  }
}

function prepared(block: RamBlock, memory: BlockMemory, options: RamBlockOptions): RamBlock {
  if (options.hugePages) memory.adviseHugePages();
  if (options.prefault) block.prefault();
  return block;
}

/** Holds all of `blocks`, or none when one of them has been disposed; see {@linkcode RamBlock.hold}. */
export function holdBlocks(blocks: readonly RamBlock[]): HeldBlocks {
  using stack = new DisposableStack();
  const held = blocks.map((block) => stack.use(block.hold()));
  const all = stack.move();
  return { blocks: held, [Symbol.dispose]: () => all.dispose() };
}
