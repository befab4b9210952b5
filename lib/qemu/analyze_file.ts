/**
 * Analyses a recording or a migration file of QEMU, the plain and the mapped-ram kind: sections,
 * devices with all their fields, RAM blocks with counted pages. Blocks the calling thread.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, isZero, lseek } from "../../ffi/libc.ts";
import { SeekFrom } from "../../ffi/linux.ts";
import { streamStart } from "../snapshot/libvirt_header.ts";
import {
  IGNORE_SHARED_CAPABILITY,
  MAPPED_RAM_CAPABILITY,
  REGION_HEADER_BYTES,
} from "../snapshot/mapped_ram_format.ts";
import { readSnapshotIndex, type SnapshotIndex } from "../snapshot/snapshot_index.ts";
import { FileInput, type PositionedSource } from "../snapshot/positioned_io.ts";
import { readSnapshotSource } from "../snapshot/snapshot_source.ts";
import { LimitError, type MultifdError } from "../errors.ts";
import {
  ANALYZED_SECTIONS_MAX,
  DESCRIPTION_BYTES_MAX,
  DEVICE_STATE_BYTES_MAX,
  FILE_JOB_BYTES,
  MAPPED_RAM_BYTES_MAX,
  PAGE_SIZE_DEFAULT,
  PAGE_SIZES,
} from "../limits.ts";
import { openRegularFile, type OpenedFile } from "../storage/opened_file.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import {
  HEADER_BYTES,
  isRecording,
  recordingError,
  type RecordedBlock,
  type RecordingMetadata,
} from "../recording/recording_layout.ts";
import { readRecording } from "../recording/recording_reader.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import {
  FOOTER_BYTES,
  Section,
  type AnnouncedBlock,
  type SectionHeader,
  type StreamConfiguration,
} from "../wire/main_stream.ts";
import { MainStreamReader, type MainStreamHandler } from "../wire/main_stream_reader.ts";
import { encodeFullSection } from "../wire/main_stream_writer.ts";
import { readOpaqueSection } from "../wire/opaque_state.ts";
import { formatUuid } from "../wire/uuid.ts";
import { findDescription, type FoundDescription } from "../wire/vm_description.ts";
import { DeviceSections, type AnalyzedDevice, type AnalyzedSection } from "./device_sections.ts";

/** A RAM block and its pages. */
export interface AnalyzedBlock {
  readonly idstr: string;
  readonly bytes: number;
  readonly pages: number;
  /** Pages with content in the file. Of a page sent twice, the last time counts. */
  readonly normalPages: number;
  /** Pages that are zero, as far as the file says so. */
  readonly zeroPages: number;
  /** Pages the file says nothing about: they are in packets elsewhere, or shared. */
  readonly absentPages: number;
}

/** What {@linkcode analyze} found. */
export interface Analysis {
  /** A recording of this library, QEMU's stream, or QEMU's mapped-ram file. */
  readonly kind: "recording" | "stream" | "mapped-ram";
  readonly fileBytes: number;
  readonly machine: string;
  readonly pageSize: number;
  /** Absent when the file does not say. */
  readonly uuid?: string | undefined;
  /** Capabilities that the stream names. */
  readonly capabilities: readonly string[];
  /** Whether the file holds a VM description. */
  readonly hasDescription: boolean;
  readonly blocks: readonly AnalyzedBlock[];
  /** Page records in the stream, repeated ones counted again. */
  readonly records: { readonly normal: number; readonly zero: number; readonly syncs: number };
  readonly sections: readonly AnalyzedSection[];
  readonly devices: readonly AnalyzedDevice[];
  /** Facts of a recording. */
  readonly recording?: RecordingMetadata | undefined;
}

/**
 * Analyses the file at `path`.
 *
 * @param offset Where a migration stream begins in the file, in bytes.
 * @throws {SystemError} when it cannot be read.
 * @throws {MultifdError} when it is neither a recording nor a migration stream, or a damaged one.
 */
export function analyzeFile(path: string, offset = 0): Analysis {
  using file = openRegularFile(`Cannot open ${path}`, path);
  const head = new Arena(HEADER_BYTES);
  file.read(head.address, HEADER_BYTES, 0);
  if (offset === 0 && isRecording(head.u8)) return analyzeRecording(file);
  using source = readSnapshotSource(file);
  return new StreamAnalyzer(source, offset).analyze();
}

function analyzeRecording(file: OpenedFile): Analysis {
  const fileBytes = file.length();
  const { metadata, state } = readRecording(file);
  const description = findDescription(state.devices)?.json;
  const parts = new DeviceSections(description);
  parts.read(state.early, metadata.early.offset);
  parts.read(state.devices, metadata.devices.offset);
  const { pageSize } = metadata;
  const blocks = metadata.blocks.map((block) => {
    const { idstr, bytes } = block;
    const pages = Math.ceil(bytes / pageSize);
    const normalPages = countNormalPages(file, block, pageSize);
    return { idstr, bytes, pages, normalPages, zeroPages: pages - normalPages, absentPages: 0 };
  });
  return {
    kind: "recording",
    fileBytes,
    machine: metadata.machine,
    pageSize,
    uuid: metadata.uuid,
    capabilities: [],
    hasDescription: description !== undefined,
    blocks,
    records: { normal: 0, zero: 0, syncs: 0 },
    sections: parts.sections,
    devices: parts.devices,
    recording: metadata,
  };
}

/**
 * Counts pages with content; holes of the file, which may be all of a huge block, are passed over.
 * Reads instead of mapping: what is cut off meanwhile must not end the process.
 */
function countNormalPages(file: OpenedFile, block: RecordedBlock, pageSize: number): number {
  const { fd } = file;
  const { offset, bytes } = block;
  const window = new Arena(FILE_JOB_BYTES);
  let normal = 0;
  for (let at = 0; at < bytes;) {
    const data = lseek(fd, offset + at, SeekFrom.DATA);
    // Refused behind the last data, and by file systems that know no holes.
    if (data < 0 && data !== -Errno.EINVAL) break;
    const start = data < 0 ? at : Math.floor((data - offset) / pageSize) * pageSize;
    if (start >= bytes) break;
    const hole = data < 0 ? -1 : lseek(fd, data, SeekFrom.HOLE);
    const end = hole < 0 ? bytes : Math.ceil(Math.min(hole - offset, bytes) / pageSize) * pageSize;
    for (at = Math.max(at, start); at < end;) {
      const part = Math.min(FILE_JOB_BYTES, end - at);
      if (file.read(window.address, part, offset + at) < part)
        throw shortened(file, offset + bytes);
      for (let page = 0; page < part; page += pageSize) {
        if (!isZero(window.address + page, pageSize)) normal++;
      }
      at += part;
    }
  }
  if (file.length() >= offset + bytes) return normal;
  throw shortened(file, offset + bytes);
}

function shortened(file: OpenedFile, end: number): MultifdError {
  return recordingError(`it ends at ${file.length()}, must hold RAM up to ${end}`);
}

interface CountedBlock extends AnnouncedBlock {
  readonly normal: PageBitmap;
  readonly zero: PageBitmap;
  /** Bits in both, kept as they change: counting them takes memory and time for pages never sent. */
  readonly counts: { normalPages: number; zeroPages: number };
}

/** Reads a stream in a file as a destination would, and keeps nothing of the pages. */
class StreamAnalyzer implements MainStreamHandler {
  readonly #source: PositionedSource;
  readonly #start: number;
  readonly #fileBytes: number;
  readonly #input: FileInput;
  readonly #description: FoundDescription["json"] | undefined;
  readonly #pageSize: number;
  readonly #parts: DeviceSections;
  readonly #sections: AnalyzedSection[] = [];
  readonly #blocks = new Map<string, CountedBlock>();
  readonly #records = { normal: 0, zero: 0, syncs: 0 };
  #configuration: StreamConfiguration = { machine: "", capabilities: [] };
  #ramSectionId: number | undefined;
  #open: { kind: AnalyzedSection["kind"]; offset: number } | undefined;
  #mappedRam = false;

  constructor(source: PositionedSource, offset: number) {
    const start = streamStart(source, offset);
    this.#source = source;
    this.#start = start;
    this.#fileBytes = source.bytes;
    this.#input = new FileInput(this.#source, start);
    this.#description = findDescription(tailOf(source))?.json;
    this.#parts = new DeviceSections(this.#description);
    const pageSize = this.#description?.["page_size"];
    this.#pageSize = PAGE_SIZES.find((size) => size === pageSize) ?? PAGE_SIZE_DEFAULT;
  }

  analyze(): Analysis {
    // Flags lie below the smallest page size, so records can be read before the size is known.
    new MainStreamReader(this.#input.reader, this, this.#pageSize).readAll();
    this.#close();
    const { machine, capabilities, uuid } = this.#configuration;
    return {
      kind: this.#mappedRam ? "mapped-ram" : "stream",
      fileBytes: this.#fileBytes,
      machine,
      pageSize: this.#pageSize,
      uuid: uuid === undefined ? undefined : formatUuid(uuid),
      capabilities,
      hasDescription: this.#description !== undefined,
      blocks: this.#mappedRam ? this.#mappedBlocks() : this.#countedBlocks(),
      records: this.#records,
      sections: [...this.#sections, ...this.#parts.sections].toSorted(
        (left, right) => left.offset - right.offset,
      ),
      devices: this.#parts.devices,
    };
  }

  configuration(configuration: StreamConfiguration): void {
    this.#configuration = configuration;
    this.#mappedRam = configuration.capabilities.includes(MAPPED_RAM_CAPABILITY);
    this.#open = { kind: "configuration", offset: this.#start };
    this.#close(1);
  }

  element(type: number): void {
    this.#close(1);
    if (this.#sections.length >= ANALYZED_SECTIONS_MAX) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_SECTIONS",
        `Cannot analyze stream: more than ${ANALYZED_SECTIONS_MAX} sections, the most allowed`,
      );
    }
    const kinds: Readonly<Record<number, AnalyzedSection["kind"]>> = {
      [Section.COMMAND]: "command",
      [Section.START]: "start",
      [Section.PART]: "part",
      [Section.END]: "end",
    };
    const kind = kinds[type]; // full sections come with more to tell
    this.#open = kind === undefined ? undefined : { kind, offset: this.#input.offset - 1 };
  }

  ramSection(sectionId: number): void {
    this.#ramSectionId = sectionId;
  }

  blockDetails({ idstr }: AnnouncedBlock): void {
    if (this.#configuration.capabilities.includes(IGNORE_SHARED_CAPABILITY)) {
      this.#input.reader.u64(); // guest physical address
    }
    if (!this.#mappedRam) return;
    // The index reader knows these headers; here only their end matters.
    const block = this.#mappedIndex().blocks.find((mapped) => mapped.idstr === idstr);
    // Of a block that was left out there is nothing but a header.
    if (block === undefined) this.#input.reader.skip(REGION_HEADER_BYTES);
    else this.#input.seek(block.pagesOffset + block.bytes);
  }

  ramBlocks(blocks: readonly AnnouncedBlock[]): void {
    if (this.#mappedRam) return;
    const total = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
    if (total > MAPPED_RAM_BYTES_MAX) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_RAM",
        `Cannot analyze stream: it announces ${total} bytes of RAM, at most ${MAPPED_RAM_BYTES_MAX} are allowed`,
      );
    }
    for (const block of blocks) {
      const pages = Math.ceil(block.bytes / this.#pageSize);
      const [normal, zero] = [new PageBitmap(pages), new PageBitmap(pages)];
      const counts = { normalPages: 0, zeroPages: 0 };
      this.#blocks.set(block.idstr, { ...block, normal, zero, counts });
    }
  }

  page(idstr: string, offset: number): void {
    this.#records.normal++;
    this.#count(idstr, offset, true);
    this.#input.reader.skip(this.#pageSize);
  }

  zeroPage(idstr: string, offset: number): void {
    this.#records.zero++;
    this.#count(idstr, offset, false);
  }

  syncMarker(): void {
    this.#records.syncs++;
  }

  ramSectionEnd(): void {
    // Nothing to wait for in a file.
  }

  openReturnPath(): void {
    // Nobody to answer.
  }

  ping(): void {
    // Nobody to answer.
  }

  switchoverStart(): void {
    // Listed as a command.
  }

  fullSection(header: SectionHeader, reader: ByteReader): boolean {
    const offset = this.#input.offset;
    const data = readOpaqueSection(reader, header.sectionId, this.#ramSectionId);
    const section = encodeFullSection(header, data);
    const headerBytes = section.byteLength - data.byteLength - FOOTER_BYTES;
    this.#parts.read(section, offset - headerBytes);
    return true;
  }

  takeRest(reader: ByteReader): void {
    this.#close();
    const { offset } = this.#input;
    const length = Math.min(this.#fileBytes - offset, DEVICE_STATE_BYTES_MAX);
    this.#parts.read(reader.bytes(length), offset);
  }

  /** Ends the open section; `ahead` bytes of the next one have been read. */
  #close(ahead = 0): void {
    if (this.#open === undefined) return;
    const { kind, offset } = this.#open;
    this.#open = undefined;
    const bytes = this.#input.offset - ahead - offset;
    const isRam = kind === "start" || kind === "part" || kind === "end";
    const ram = isRam ? { sectionId: this.#ramSectionId, name: "ram", instanceId: 0 } : {};
    this.#sections.push({ kind, offset, bytes, ...ram });
  }

  #count(idstr: string, offset: number, normal: boolean): void {
    const block = this.#blocks.get(idstr)!; // the section reader knows only announced blocks
    const page = Math.floor(offset / this.#pageSize);
    const { counts } = block;
    if ((normal ? block.normal : block.zero).set(page)) {
      counts[normal ? "normalPages" : "zeroPages"]++;
    }
    if ((normal ? block.zero : block.normal).clear(page)) {
      counts[normal ? "zeroPages" : "normalPages"]--;
    }
  }

  #countedBlocks(): AnalyzedBlock[] {
    return Array.from(this.#blocks.values(), ({ idstr, bytes, normal, counts }) => {
      const { pages } = normal;
      const absentPages = pages - counts.normalPages - counts.zeroPages;
      return { idstr, bytes, pages, ...counts, absentPages };
    });
  }

  #mappedBlocks(): AnalyzedBlock[] {
    const { blocks, sharedBlocks } = this.#mappedIndex();
    const found = blocks.map(({ idstr, bytes, pages, present }) => {
      const normalPages = present.count();
      return { idstr, bytes, pages, normalPages, zeroPages: pages - normalPages, absentPages: 0 };
    });
    const leftOut = sharedBlocks.map(({ idstr, bytes }) => {
      const pages = Math.ceil(bytes / this.#pageSize);
      return { idstr, bytes, pages, normalPages: 0, zeroPages: 0, absentPages: pages };
    });
    return [...found, ...leftOut];
  }

  #index: SnapshotIndex | undefined;

  #mappedIndex(): SnapshotIndex {
    return (this.#index ??= readSnapshotIndex(this.#source, this.#start));
  }
}

/** The end of a file, long enough for the longest description. */
function tailOf(source: PositionedSource): Uint8Array {
  const bytes = Math.min(source.bytes, DESCRIPTION_BYTES_MAX + 16);
  if (bytes === 0) return new Uint8Array();
  const tail = new Arena(bytes);
  source.readSparse(tail.address, bytes, source.bytes - bytes);
  return tail.u8.subarray(0, bytes);
}
