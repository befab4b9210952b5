/**
 * Reads what a snapshot says about itself: configuration, where each block lies, which pages
 * are present, and where the device state begins. Nothing of the pages is read.
 *
 * The file is hostile: every offset is checked against the file before it is used, and a file whose
 * RAM was not written to the end is refused, since its bitmaps may be missing.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { LimitError } from "../errors.ts";
import { DEVICE_STATE_BYTES_MAX, EARLY_STATE_BYTES_MAX, MAPPED_RAM_BYTES_MAX } from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import type { AnnouncedBlock, SectionHeader, StreamConfiguration } from "../wire/main_stream.ts";
import { MainStreamReader, type MainStreamHandler } from "../wire/main_stream_reader.ts";
import { encodeFullSection } from "../wire/main_stream_writer.ts";
import { readOpaqueSection, StateCollector } from "../wire/opaque_state.ts";
import {
  fileError,
  IGNORE_SHARED_CAPABILITY,
  MAPPED_RAM_CAPABILITY,
  readRegionHeader,
  type SnapshotRegion,
} from "./mapped_ram_format.ts";
import { FileInput, type PositionedSource } from "./positioned_io.ts";

/** A RAM block in a file. */
export interface SnapshotBlock extends SnapshotRegion {
  /** Length in pages. */
  readonly pages: number;
  /** Pages whose content is in the file; all others are zero. */
  readonly present: PageBitmap;
}

/** See the module comment. */
export interface SnapshotIndex {
  /** Start offset of the stream in the file. */
  readonly start: number;
  readonly configuration: StreamConfiguration;
  /** Complete sections of devices in front of RAM. */
  readonly early: Uint8Array;
  /** Section number of RAM, which no section of the device state has. */
  readonly ramSectionId: number;
  /** Blocks in the file, in its order. */
  readonly blocks: readonly SnapshotBlock[];
  /** Blocks that were left out because the destination shares their memory (x-ignore-shared). */
  readonly sharedBlocks: readonly AnnouncedBlock[];
  /** Whether the stream marks the point at which the guest was stopped. */
  readonly switchoverStart: boolean;
  /** File offset behind RAM's last section; device sections and the end of the stream follow. */
  readonly deviceStateOffset: number;
  /** Length of the file in bytes. */
  readonly fileBytes: number;
}

/** Page size of RAM records as far as their flags are concerned: every page size is a multiple. */
const RECORD_PAGE_BYTES = 4096;

/**
 * Reads the index of an open file whose stream begins at `offset`.
 *
 * @throws {StreamError} for anything that breaks the format; the code ends with `TRUNCATED` when the
 * file ends early or was never completed.
 */
export function readSnapshotIndex(source: PositionedSource, offset: number): SnapshotIndex {
  return new IndexReader(source, offset).read();
}

/** An index in the form that can be posted to another thread. */
export interface SharedSnapshotIndex extends Omit<SnapshotIndex, "blocks"> {
  readonly blocks: readonly (Omit<SnapshotBlock, "present"> & {
    readonly present: SharedArrayBuffer;
  })[];
}

/** The form to post to another thread. */
export function shareIndex(index: SnapshotIndex): SharedSnapshotIndex {
  const blocks = index.blocks.map((block) => ({ ...block, present: block.present.buffer }));
  return { ...index, blocks };
}

/** The index that another thread has read. */
export function receiveIndex(shared: SharedSnapshotIndex): SnapshotIndex {
  const blocks = shared.blocks.map((block) => ({
    ...block,
    present: new PageBitmap(block.pages, block.present),
  }));
  return { ...shared, blocks };
}

/**
 * Where the device state lies in the file.
 *
 * @throws {LimitError} when it does not fit an array.
 */
export function deviceStateRange(
  { deviceStateOffset: offset, fileBytes }: SnapshotIndex,
  path: string,
): { readonly offset: number; readonly bytes: number } {
  const bytes = fileBytes - offset;
  if (bytes <= DEVICE_STATE_BYTES_MAX) return { offset, bytes };
  throw new LimitError(
    "ERR_MULTIFD_LIMIT_DEVICE_STATE",
    `Cannot read device state of ${path}: ${bytes} bytes, at most ${DEVICE_STATE_BYTES_MAX}`,
  );
}

class IndexReader implements MainStreamHandler {
  readonly #source: PositionedSource;
  readonly #input: FileInput;
  readonly #blocks: SnapshotBlock[] = [];
  readonly #sharedBlocks: AnnouncedBlock[] = [];
  readonly #early = new StateCollector(EARLY_STATE_BYTES_MAX, "state of devices in front of RAM");
  #ramBytes = 0;
  #configuration: StreamConfiguration | undefined;
  #ignoreShared = false;
  #ramSectionId: number | undefined;
  #switchoverStart = false;
  #deviceStateOffset = 0;

  constructor(source: PositionedSource, offset: number) {
    this.#source = source;
    this.#input = new FileInput(source, offset);
  }

  read(): SnapshotIndex {
    const start = this.#input.offset;
    new MainStreamReader(this.#input.reader, this, RECORD_PAGE_BYTES).readAll();
    return {
      start,
      configuration: this.#configuration!,
      early: this.#early.bytes.slice(),
      ramSectionId: this.#ramSectionId!,
      blocks: this.#blocks,
      sharedBlocks: this.#sharedBlocks,
      switchoverStart: this.#switchoverStart,
      deviceStateOffset: this.#deviceStateOffset,
      fileBytes: this.#source.bytes,
    };
  }

  configuration(configuration: StreamConfiguration): void {
    const { capabilities } = configuration;
    if (!capabilities.includes(MAPPED_RAM_CAPABILITY)) {
      throw fileError("CAPABILITY", "its stream is not a mapped-ram one, RAM is in packets");
    }
    this.#ignoreShared = capabilities.includes(IGNORE_SHARED_CAPABILITY);
    this.#configuration = configuration;
  }

  ramSection(sectionId: number): void {
    this.#ramSectionId = sectionId;
  }

  blockDetails(block: AnnouncedBlock): void {
    const { reader } = this.#input;
    if (this.#ignoreShared) reader.u64(); // guest physical address
    const region = readRegionHeader(reader, block, {
      headerOffset: this.#input.offset,
      fileBytes: this.#source.bytes,
      ignoreShared: this.#ignoreShared,
    });
    if (region === undefined) {
      this.#sharedBlocks.push(block);
      return;
    }
    this.#ramBytes += region.bytes;
    if (this.#ramBytes > MAPPED_RAM_BYTES_MAX) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_RAM",
        `Cannot read mapped-ram file: more than ${MAPPED_RAM_BYTES_MAX} bytes of RAM, the most allowed`,
      );
    }
    const pages = region.bytes / region.pageSize;
    const present = readBitmap(this.#source, region, pages);
    this.#blocks.push({ ...region, pages, present });
    this.#input.seek(region.pagesOffset + region.bytes);
  }

  fullSection(header: SectionHeader, reader: ByteReader): boolean {
    const data = readOpaqueSection(reader, header.sectionId, this.#ramSectionId);
    this.#early.append(encodeFullSection(header, data));
    return true;
  }

  switchoverStart(): void {
    this.#switchoverStart = true;
  }

  takeRest(): void {
    this.#deviceStateOffset = this.#input.offset;
  }

  zeroPage(): void {
    throw fileError("RECORD", "a page record in RAM, pages must be in the regions only");
  }

  syncMarker(): void {
    throw fileError("RECORD", "a sync marker in RAM, a file has none");
  }

  openReturnPath(): void {
    throw fileError("COMMAND", "it opens a return path, which a file has not");
  }

  ping(): void {
    throw fileError("COMMAND", "it asks for an answer, which a file cannot give");
  }

  ramBlocks(): void {}

  ramSectionEnd(): void {}
}

function readBitmap(source: PositionedSource, region: SnapshotRegion, pages: number): PageBitmap {
  const bytes = PageBitmap.bytesFor(pages);
  const present = new PageBitmap(pages);
  source.readSparse(addressOf(present.buffer), bytes, region.bitmapOffset);
  // One bitmap over all stored bits: whatever is set behind the last page is none of them.
  const stray = new PageBitmap(bytes * 8, present.buffer).nextSet(pages);
  if (stray < bytes * 8) {
    throw fileError(
      "BITMAP",
      `bitmap of block ${JSON.stringify(region.idstr)} has bit ${stray}, the block ${pages} pages`,
    );
  }
  return present;
}
