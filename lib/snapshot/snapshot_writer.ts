/**
 * Writes a snapshot: headers first, then pages by parallel channels in as many rounds as
 * wanted, each page overwritten at its place, and at the end the device state and the bitmaps.
 *
 * A file that was not finished must never be taken for a finished one. So the first bytes of the
 * stream are written last, when everything else is on the device, and only then the file gets its
 * name; a crash at any moment leaves the old file, or one that does not begin like a stream.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { addressOf } from "../../ffi/arena.ts";
import type { Statistics } from "../engine/statistics.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { checkPages, commonPageSize, indexOfBlock } from "../memory/block_list.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import { RamFlag, STREAM_MAGIC, STREAM_VERSION } from "../wire/main_stream.ts";
import { MainStreamWriter, RAM_SECTION_ID } from "../wire/main_stream_writer.ts";
import { configurationOf, type GuestState } from "../wire/opaque_state.ts";
import { refuseDevices } from "../device/device.ts";
import { FileChannels, FILE_CHANNEL_OPTIONS, type FileChannelOptions } from "./file_channels.ts";
import type { SharedFileBlock } from "./file_round.ts";
import {
  layOutRegion,
  MAPPED_RAM_CAPABILITY,
  writeRegionHeader,
  type SnapshotRegion,
} from "./mapped_ram_format.ts";
import { withProgress } from "./prepared_load.ts";
import { checkChannels } from "../session/channel_count.ts";
import { OutputFile } from "../storage/output_file.ts";
import { checkOffset, FileOutput, writeWhole } from "./positioned_io.ts";

/** How a file is made. */
export interface CreateSnapshotOptions extends FileChannelOptions {
  /**
   * File to write; it appears when the writer is completed, unless it is written in place. A file
   * that is open already can be named as `/proc/self/fd/N`, and is written in place.
   */
  readonly path: string;
  /** The RAM blocks, in the order they shall have; held until the writer has ended. */
  readonly blocks: readonly RamBlock[];
  /**
   * Where the stream starts, as in `file:PATH,offset=N`: bytes in front of it stay as they are, what
   * follows is cut off, and the file is written in place. Default 0.
   */
  readonly offset?: number | undefined;
  /** Write to the file itself and rename nothing. Default false. */
  readonly inPlace?: boolean | undefined;
  /** Machine and device state, from another file or a recording. Default: memory without a machine. */
  readonly guestState?: GuestState | undefined;
  /** Who finds zero pages: the channels, or nobody, which makes the file as large as RAM. */
  readonly zeroPageDetection?: "multifd" | "none" | undefined;
  /** Wait for the device before the file counts as complete. Default true. */
  readonly sync?: boolean | undefined;
  /** Called about four times a second during a round with the counters so far. */
  readonly onProgress?: ((statistics: Statistics) => void) | undefined;
}

const CREATE_OPTIONS = {
  ...FILE_CHANNEL_OPTIONS,
  path: true,
  blocks: true,
  offset: true,
  inPlace: true,
  guestState: true,
  zeroPageDetection: true,
  sync: true,
  onProgress: true,
} satisfies OptionNames<CreateSnapshotOptions>;

interface WriterBlock {
  readonly ram: RamBlock;
  readonly region: SnapshotRegion;
  readonly pending: PageBitmap;
  readonly present: PageBitmap;
}

/** See the module comment. Made by {@linkcode createSnapshot}; dispose it in any case. */
export class SnapshotWriter implements AsyncDisposable {
  readonly #options: CreateSnapshotOptions;
  readonly #state: GuestState | undefined;
  readonly #file: OutputFile;
  readonly #output: FileOutput;
  readonly #stream: MainStreamWriter;
  readonly #blocks: readonly WriterBlock[];
  #channels: FileChannels | undefined;
  #statistics: Statistics | undefined;
  #lastCall: Promise<void> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  private constructor(options: CreateSnapshotOptions) {
    const { path, offset = 0, inPlace = false } = options;
    checkOptions(options);
    this.#options = options;
    this.#state = options.guestState;
    this.#file = new OutputFile(path, { offset, inPlace });
    try {
      this.#output = new FileOutput(this.#file.fd, offset);
      this.#stream = new MainStreamWriter(
        this.#output.writer,
        this.#state?.ramSectionId ?? RAM_SECTION_ID,
      );
      this.#blocks = this.#writeSetup();
    } catch (error) {
      this.#file[Symbol.dispose]();
      throw error;
    }
  }

  /** Creates a file; see {@linkcode createSnapshot}. */
  static async create(options: CreateSnapshotOptions): Promise<SnapshotWriter> {
    const writer = new SnapshotWriter(options);
    try {
      writer.#channels = new FileChannels(
        {
          mode: "write",
          file: writer.#file.file,
          seekTable: undefined,
          detectZeroPages: options.zeroPageDetection !== "none",
          blocks: writer.#blocks.map(sharedForWriting),
          memory: options.blocks,
          pageSize: options.blocks[0].pageSize,
          ramBytes: options.blocks.reduce((sum, { bytes }) => sum + bytes, 0),
        },
        options,
      );
      return writer;
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Writes every page of every block. */
  async write(): Promise<void> {
    await this.#round(() => {
      for (const { pending } of this.#blocks) pending.setRange(0, pending.pages);
    });
  }

  /**
   * Writes pages `first` up to, not including, `end`.
   *
   * @throws {RangeError} outside the block.
   */
  async writeRange(block: RamBlock | string, first: number, end: number): Promise<void> {
    const { blocks } = this.#options;
    const index = indexOfBlock(blocks, block, "write");
    checkPages(blocks, index, first, end, "write");
    const { pending } = this.#blocks[index];
    await this.#round(() => pending.setRange(first, end));
  }

  /**
   * Fetches all set bits of a dirty bitmap, clearing them there, and writes their pages. Writers may
   * go on setting bits; what is set afterwards belongs to the next round.
   */
  async writeBitmap(block: RamBlock | string, dirty: PageBitmap): Promise<void> {
    const { pending } = this.#blocks[indexOfBlock(this.#options.blocks, block, "write")];
    await this.#round(() => dirty.drainInto(pending));
  }

  /**
   * Ends the stream, writes the bitmaps, and makes the file appear. Pages that were never written
   * read as zero.
   *
   * @returns The final statistics; `wireBytes` are those of pages and stream.
   */
  complete(): Promise<Statistics> {
    return this.#exclusive(async () => {
      const channels = this.#open();
      const { sync = true } = this.#options;
      this.#writeEnd();
      for (const { region, present } of this.#blocks) {
        const bytes = PageBitmap.bytesFor(present.pages);
        writeWhole(this.#file.fd, addressOf(present.buffer), bytes, region.bitmapOffset);
      }
      if (sync) await this.#file.sync();
      this.#output.seal((writer) => {
        writer.u32(STREAM_MAGIC);
        writer.u32(STREAM_VERSION);
      });
      if (sync) await this.#file.sync();
      this.#file.commit(sync);
      this.#statistics = channels.statistics();
      // The threads have nothing more to do with the file; whoever disposes waits for their end.
      this[Symbol.asyncDispose]().catch(() => {});
      return this.#statistics;
    });
  }

  /** Counters as of now, after the end too. */
  statistics(): Statistics {
    return this.#statistics ?? this.#open().statistics();
  }

  /** Ends the channels and removes the file unless it was completed. Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposed ??= this.#end());
  }

  async #end(): Promise<void> {
    try {
      await this.#channels?.[Symbol.asyncDispose]();
    } finally {
      this.#file[Symbol.dispose]();
    }
  }

  #open(): FileChannels {
    if (this.#channels === undefined || this.#disposed !== undefined) {
      throw new TypeError(`Cannot write ${this.#options.path}: the writer has ended`);
    }
    return this.#channels;
  }

  async #round(markPending: () => void): Promise<void> {
    await this.#exclusive(async () => {
      const channels = this.#open();
      markPending();
      await withProgress(channels, this.#options.onProgress, () => channels.pass());
      for (const { pending } of this.#blocks) pending.clearRange(0, pending.pages);
    });
  }

  /** Calls take effect one after the other, in the order they were made. */
  async #exclusive<Result>(step: () => Promise<Result>): Promise<Result> {
    const before = this.#lastCall;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#lastCall = promise;
    await before;
    try {
      return await step();
    } finally {
      resolve();
    }
  }

  /** Everything up to the end of the setup section; the places of pages stay holes. */
  #writeSetup(): WriterBlock[] {
    const { blocks } = this.#options;
    const out = this.#output.writer;
    // A file holds all blocks, so the only capability in it is the one for its own format.
    this.#stream.header(configurationOf(this.#state, blocks[0].pageSize, [MAPPED_RAM_CAPABILITY]));
    if (this.#state !== undefined) this.#stream.verbatim(this.#state.early);
    this.#stream.beginRamSection("start");
    out.u64(blocks.reduce((sum, { bytes }) => sum + bytes, 0) + RamFlag.MEM_SIZE);
    const laidOut = blocks.map((ram) => {
      out.countedString(ram.idstr);
      out.u64(ram.bytes);
      const region = layOutRegion(ram, ram.pageSize, this.#output.flush());
      writeRegionHeader(out, region);
      this.#output.seek(region.pagesOffset + region.bytes);
      const [pending, present] = [new PageBitmap(ram.pages), new PageBitmap(ram.pages)];
      return { ram, region, pending, present };
    });
    this.#stream.endRamSection();
    this.#output.flush();
    return laidOut;
  }

  #writeEnd(): void {
    if (this.#state?.switchoverStart ?? true) this.#stream.switchoverStart();
    this.#stream.beginRamSection("end");
    this.#stream.endRamSection();
    if (this.#state !== undefined) this.#stream.verbatim(this.#state.devices);
    else this.#stream.end({ page_size: this.#options.blocks[0].pageSize, devices: [] });
    this.#output.flush();
  }
}

function sharedForWriting(block: WriterBlock): SharedFileBlock {
  return {
    ram: block.ram.share(),
    pagesOffset: block.region.pagesOffset,
    pending: block.pending.buffer,
    present: block.present.buffer,
  };
}

function checkOptions(options: CreateSnapshotOptions): void {
  const { path, blocks, offset = 0 } = options;
  checkChannels(options.channels);
  refuseDevices(options);
  checkOptionNames(CREATE_OPTIONS, options);
  commonPageSize(`Cannot create ${path}`, blocks);
  checkOffset(`Cannot create ${path}`, offset);
}

/**
 * Creates a snapshot that QEMU and this library can read with any number of channels.
 *
 * @throws {RangeError} for options that cannot work, {SystemError} when the file cannot be made.
 *
 * @example
 * ```ts
 * await using writer = await createSnapshot({ path: "guest.snap", blocks, channels: 4 });
 * await writer.write();
 * await writer.writeBitmap("pc.ram", dirty); // what has changed meanwhile
 * await writer.complete();
 * ```
 */
export function createSnapshot(options: CreateSnapshotOptions): Promise<SnapshotWriter> {
  return SnapshotWriter.create(options);
}
