/**
 * What a relay does with the main stream: everything goes on to the destination in the same order,
 * section by section, and sync points are passed at both sides.
 *
 * The SYNC packets of the outgoing channels are written when all incoming channels stand at theirs,
 * and those go on only afterwards. So no page of a later round can overtake one of an earlier round
 * on its way through.
 *
 * @module
 */
import type { BlockTable } from "../memory/block_table.ts";
import { checkConfiguration } from "../session/mismatch.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import type { ByteWriter } from "../wire/byte_writer.ts";
import {
  Section,
  type AnnouncedBlock,
  type SectionHeader,
  type StreamConfiguration,
} from "../wire/main_stream.ts";
import type { MainStreamHandler } from "../wire/main_stream_reader.ts";
import { encodeFullSection, MainStreamWriter } from "../wire/main_stream_writer.ts";
import { readOpaqueSection } from "../wire/opaque_state.ts";
import { SyncPoints } from "../wire/sync_points.ts";
import type { StreamTail } from "./stream_tail.ts";

/** The relay behind a stream. */
export interface RelayTarget {
  readonly out: ByteWriter;
  readonly table: BlockTable;
  /** Where the device state that goes through leaves its end. */
  readonly tail: StreamTail;
  /** Page size in bytes. */
  readonly pageSize: number;
  /** uuid that the destination compares, if the stream names one. */
  readonly uuid: Uint8Array;
  /** The blocks are known and in the table. */
  blocksKnown(): void;
  /** The destination may answer now. */
  openReturnPath(): void;
  /** The source has sent a PING, which says what it understands. */
  pinged(value: number): void;
  /** The RAM begins; a source that has opened no return path by now never will. */
  checkReturnPath(): void;
  /** Counts a zero page. */
  countZeroPage(): void;
  /** Waits until all incoming channels stand at a sync point, and synchronises the outgoing ones. */
  synchronise(): void;
  /** Lets the incoming channels go on. */
  release(): void;
  /** The guest has stopped; what follows is the end. Called once or twice. */
  completing(): void;
  /** The RAM is complete; throws when the incoming channels have more than that. */
  closeChannels(): void;
}

const CHUNK_BYTES = 65_536;

/** See the module comment. */
export class RelayStream implements MainStreamHandler {
  readonly #target: RelayTarget;
  #writer: MainStreamWriter;
  readonly #syncPoints = new SyncPoints();
  #ramSectionId: number | undefined;

  constructor(target: RelayTarget) {
    this.#target = target;
    this.#writer = new MainStreamWriter(target.out);
  }

  configuration(configuration: StreamConfiguration): void {
    const { uuid } = configuration;
    checkConfiguration(configuration, this.#target.pageSize, "relay migration");
    this.#writer.header({
      ...configuration,
      uuid: uuid === undefined ? undefined : this.#target.uuid,
    });
    this.#target.out.flush();
  }

  openReturnPath(): void {
    this.#writer.openReturnPath();
    this.#target.out.flush();
    this.#target.openReturnPath();
  }

  ping(value: number): void {
    this.#target.pinged(value);
    this.#writer.ping(value);
    this.#target.out.flush();
  }

  switchoverStart(): void {
    this.#writer.switchoverStart();
    this.#target.out.flush();
    this.#target.completing();
  }

  element(type: number): void {
    if (this.#ramSectionId === undefined) return;
    if (type === Section.PART) this.#writer.beginRamSection("part");
    if (type !== Section.END) return;
    this.#target.completing();
    this.#writer.beginRamSection("end");
  }

  ramSection(sectionId: number): void {
    this.#target.checkReturnPath();
    this.#ramSectionId = sectionId;
    this.#writer = new MainStreamWriter(this.#target.out, sectionId);
    this.#writer.beginRamSection("start");
  }

  ramBlocks(blocks: readonly AnnouncedBlock[]): void {
    const { table, pageSize } = this.#target;
    for (const { idstr, bytes } of blocks) {
      const pages = bytes / pageSize;
      const nowhere = { segments: [], segmentBytes: bytes, zeroed: false };
      table.add({ idstr, bytes, pages, pageSize, ...nowhere });
    }
    this.#writer.blockList(table.blocks);
    this.#target.blocksKnown();
  }

  zeroPage(idstr: string, offset: number): void {
    const block = this.#target.table.find(idstr)!; // the section reader knows only announced blocks
    this.#writer.zeroPage(block, offset / block.pageSize);
    this.#target.countZeroPage();
  }

  syncMarker(): void {
    this.#syncPoints.marker();
    this.#target.synchronise();
    this.#writer.syncMarker();
    this.#target.out.flush();
    this.#target.release();
  }

  ramSectionEnd(): void {
    const synchronises = this.#syncPoints.sectionEnd();
    if (synchronises) this.#target.synchronise();
    this.#writer.endRamSection();
    this.#target.out.flush();
    if (synchronises) this.#target.release();
  }

  fullSection(header: SectionHeader, reader: ByteReader): boolean {
    const data = readOpaqueSection(reader, header.sectionId, this.#ramSectionId);
    // The section's own footer is still to come, and is checked before anything follows here.
    this.#writer.verbatim(encodeFullSection(header, data));
    return true;
  }

  /** Device state goes through as it comes; the source's end of the connection is the end. */
  takeRest(reader: ByteReader): void {
    const { out, tail } = this.#target;
    // Before the destination gets what it needs to start the guest.
    this.#target.closeChannels();
    for (;;) {
      const chunk = reader.some(CHUNK_BYTES);
      if (chunk === undefined) return;
      tail.append(chunk);
      out.bytes(chunk);
      out.flush();
    }
  }
}
