/**
 * Writes the main migration stream as a source does (main channel description, sections 1 to 8).
 *
 * @module
 */
import type { WireBlock } from "./block_id.ts";
import type { ByteWriter } from "./byte_writer.ts";
import {
  FOOTER_BYTES,
  Command,
  ConfigurationName,
  RAM_SECTION,
  RamFlag,
  Section,
  STREAM_MAGIC,
  STREAM_VERSION,
  type SectionHeader,
  type StreamConfiguration,
} from "./main_stream.ts";

/** Number of the RAM section where no other is asked for. */
export const RAM_SECTION_ID = 1;

/** The sections of an iterable device. */
export type RamSectionKind = "start" | "part" | "end";

const SECTION_OF = { start: Section.START, part: Section.PART, end: Section.END } as const;

/** See the module comment. Calls must follow the order of the stream; nothing is flushed here. */
export class MainStreamWriter {
  readonly #out: ByteWriter;
  readonly #ramSectionId: number;
  #lastRecordBlock = -1;

  constructor(out: ByteWriter, ramSectionId: number = RAM_SECTION_ID) {
    this.#out = out;
    this.#ramSectionId = ramSectionId;
  }

  /** File header and configuration section. */
  header(configuration: StreamConfiguration): void {
    const out = this.#out;
    out.u32(STREAM_MAGIC);
    out.u32(STREAM_VERSION);
    out.u8(Section.CONFIGURATION);
    const machine = new TextEncoder().encode(configuration.machine);
    out.u32(machine.byteLength);
    out.bytes(machine);
    if (configuration.pageBits !== undefined) {
      this.#subsection(ConfigurationName.PAGE_BITS);
      out.u32(configuration.pageBits);
    }
    if (configuration.capabilities.length > 0) {
      this.#subsection(ConfigurationName.CAPABILITIES);
      out.u32(configuration.capabilities.length);
      for (const name of configuration.capabilities) out.countedString(name);
    }
    if (configuration.uuid !== undefined) {
      this.#subsection(ConfigurationName.UUID);
      out.bytes(configuration.uuid);
    }
  }

  /** Allows the destination to answer on this connection. */
  openReturnPath(): void {
    this.#command(Command.OPEN_RETURN_PATH, 0);
  }

  /** Asks for a PONG with the same value. */
  ping(value: number): void {
    this.#command(Command.PING, 4);
    this.#out.u32(value);
  }

  /** Says that the source has stopped and its final phase begins. */
  switchoverStart(): void {
    this.#command(Command.SWITCHOVER_START, 0);
  }

  /** Begins a RAM section. */
  beginRamSection(kind: RamSectionKind): void {
    this.#lastRecordBlock = -1;
    this.#out.u8(SECTION_OF[kind]);
    this.#out.u32(this.#ramSectionId);
    if (kind !== "start") return;
    this.#out.countedString(RAM_SECTION.idstr);
    this.#out.u32(RAM_SECTION.instanceId);
    this.#out.u32(RAM_SECTION.version);
  }

  /**
   * The block list, in a start section.
   *
   * @param hostPages Where memory may follow its guest, the sizes of the pages that the destination's
   * memory is made of: what is not the usual one is named.
   */
  blockList(blocks: readonly WireBlock[], hostPages?: readonly number[]): void {
    const total = blocks.reduce((sum, { pages, pageSize }) => sum + pages * pageSize, 0);
    this.#out.u64(total + RamFlag.MEM_SIZE);
    for (const { idstr, index, pages, pageSize } of blocks) {
      this.#out.countedString(idstr);
      this.#out.u64(pages * pageSize);
      const hostPage = hostPages?.[index] ?? pageSize;
      if (hostPage !== pageSize) this.#out.u64(hostPage);
    }
  }

  /** A zero page, in legacy detection mode. */
  zeroPage(block: WireBlock, page: number): void {
    const same = this.#lastRecordBlock === block.index;
    this.#out.u64(page * block.pageSize + RamFlag.ZERO + (same ? RamFlag.CONTINUE : 0));
    if (!same) this.#out.countedString(block.idstr);
    this.#out.u8(0);
    this.#lastRecordBlock = block.index;
  }

  /** The sync marker of per-round mode; every channel has written its SYNC before. */
  syncMarker(): void {
    this.#out.u64(RamFlag.MULTIFD_FLUSH);
  }

  /** Ends a RAM section. */
  endRamSection(): void {
    this.#out.u64(RamFlag.EOS);
    this.#footer(this.#ramSectionId);
  }

  /** A complete section of another device. */
  fullSection(header: SectionHeader, data: Uint8Array): void {
    this.verbatim(encodeFullSection(header, data));
  }

  /** Sections, or the rest of a stream, exactly as given. */
  verbatim(bytes: Uint8Array): void {
    this.#out.bytes(bytes);
  }

  /** End mark alone, as a checkpoint's RAM ends. */
  endMark(): void {
    this.#out.u8(Section.EOF);
  }

  /** End mark and VM description. */
  end(description: object): void {
    const json = new TextEncoder().encode(JSON.stringify(description));
    this.#out.u8(Section.EOF);
    this.#out.u8(Section.VM_DESCRIPTION);
    this.#out.u32(json.byteLength);
    this.#out.bytes(json);
  }

  #command(command: number, length: number): void {
    this.#out.u8(Section.COMMAND);
    this.#out.u16(command);
    this.#out.u16(length);
  }

  #subsection(name: string): void {
    this.#out.u8(Section.SUBSECTION);
    this.#out.countedString(name);
    this.#out.u32(1);
  }

  #footer(sectionId: number): void {
    this.#out.u8(Section.FOOTER);
    this.#out.u32(sectionId);
  }
}

/** A complete section of another device, as bytes of its own. */
export function encodeFullSection(header: SectionHeader, data: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(header.idstr);
  const bytes = new Uint8Array(1 + 4 + 1 + name.byteLength + 8 + data.byteLength + FOOTER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, Section.FULL);
  view.setUint32(1, header.sectionId);
  view.setUint8(5, name.byteLength);
  bytes.set(name, 6);
  const at = 6 + name.byteLength;
  view.setUint32(at, header.instanceId);
  view.setUint32(at + 4, header.version);
  bytes.set(data, at + 8);
  view.setUint8(at + 8 + data.byteLength, Section.FOOTER);
  view.setUint32(at + 9 + data.byteLength, header.sectionId);
  return bytes;
}
