/**
 * What a receiver does with the main stream: answers on the return path, hands blocks, pages and sync
 * points to the receiver, and keeps what the receiver cannot interpret.
 *
 * @module
 */
import { ChannelError } from "../errors.ts";
import type { Connection } from "../net/connection.ts";
import { DEVICE_STATE_BYTES_MAX } from "../limits.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter, type ByteSink } from "../wire/byte_writer.ts";
import {
  PEER_PING_VALUE,
  Section,
  type AnnouncedBlock,
  type SectionHeader,
  type StreamConfiguration,
} from "../wire/main_stream.ts";
import type { MainStreamHandler } from "../wire/main_stream_reader.ts";
import { encodeFullSection, RAM_SECTION_ID } from "../wire/main_stream_writer.ts";
import {
  readOpaqueSection,
  readToEnd,
  StateCollector,
  type GuestState,
} from "../wire/opaque_state.ts";
import { isOwnSection } from "../wire/own_sections.ts";
import { sendPong, sendShut, sendSwitchoverAck } from "../wire/return_path.ts";
import { SyncPoints } from "../wire/sync_points.ts";
import { digestSection } from "./digests.ts";
import { tellFailure } from "./last_words.ts";
import { deviceSummarySection, type DeviceSummary } from "./device_summary.ts";
import type { MemoryBudget } from "./memory_budget.ts";
import { mismatch } from "./mismatch.ts";
import type { ReceiverConfig } from "./session_config.ts";
import { requireSourceEnd } from "./source_end.ts";
import { expectsSwitchoverAck } from "./switchover_ack.ts";

/** What a byte of captured state takes: the longest copy, the one it grew from, the caller's. */
const STATE_COPIES = 3;
const SHUT_OK = 0;

/** The receiver behind a stream; all calls come in stream order from the stream's thread. */
export interface StreamTarget {
  readonly config: ReceiverConfig;
  /** Whether source and receiver go on after the migration. */
  readonly goesOn: boolean;
  readonly budget: MemoryBudget;
  checkConfiguration(configuration: StreamConfiguration): void;
  /** The source will not wait for a confirmation. */
  missReturnPath(): void;
  takeBlocks(announced: readonly AnnouncedBlock[]): void;
  placeZeroPage(idstr: string, offset: number): void;
  passSyncPoint(): void;
  compareDigests(digests: ReadonlyMap<string, Uint8Array>): void;
  switchOver(): void;
  startDevices(): void;
  expectDevices(summary: DeviceSummary): void;
}

/** See the module comment. */
export class ReceiverStream implements MainStreamHandler {
  /** Present only when everything after the RAM is to be kept. */
  readonly takeRest: ((reader: ByteReader) => void) | undefined;
  readonly #target: StreamTarget;
  readonly #replies: ByteWriter;
  readonly #syncPoints = new SyncPoints();
  #returnPath = false;
  /** Whether the source understands why it is refused. */
  #understands = false;
  /** Whether it has been told that all is in place. */
  #confirmed = false;
  /** Why it is refused, from its configuration on; it can be told only when it has opened the path. */
  #refusal: Error | undefined;
  #switchoverStart = false;
  #configuration: StreamConfiguration | undefined;
  #ramSectionId: number | undefined;
  readonly #early = new StateCollector(DEVICE_STATE_BYTES_MAX, "sections in front of the RAM");
  #devices: Uint8Array = new Uint8Array(0);
  #digests: ReadonlyMap<string, Uint8Array> | undefined;

  constructor(target: StreamTarget, replies: ByteSink) {
    this.#target = target;
    this.#replies = new ByteWriter(replies);
    if (!target.config.capture) return;
    this.takeRest = (reader) => {
      this.#devices = readToEnd(
        reader,
        this.#returnPath || target.goesOn, // the source stays connected
        // It is copied as it grows, and once more for the caller.
        Math.floor(target.budget.left / STATE_COPIES),
      );
    };
  }

  configuration(configuration: StreamConfiguration): void {
    this.#configuration = configuration;
    try {
      this.#target.checkConfiguration(configuration);
    } catch (error) {
      this.#refusal = error as Error;
    }
  }

  openReturnPath(): void {
    if (this.#returnPath) this.#requireFitting();
    this.#returnPath = true;
    // No device here has to load anything before the source may stop, so there is only the
    // acknowledgement that nobody has asked for.
    const { machine = "" } = this.#configuration ?? {};
    if (expectsSwitchoverAck(this.#target.config.switchoverAck, machine)) {
      sendSwitchoverAck(this.#replies);
    }
  }

  ping(value: number): void {
    if (!this.#returnPath) {
      throw mismatch("COMMAND", "PING before the return path was opened");
    }
    this.#understands = value === PEER_PING_VALUE;
    this.#requireFitting();
    sendPong(this.#replies, value);
  }

  element(type: number): void {
    if (type !== Section.COMMAND) this.#requireFitting();
    if (type === Section.END) this.#target.switchOver();
  }

  switchoverStart(): void {
    this.#requireFitting();
    this.#switchoverStart = true;
    this.#target.switchOver();
    this.#target.startDevices();
  }

  goesOn(): boolean {
    this.#requireFitting();
    return this.#target.goesOn;
  }

  ramSection(sectionId: number): void {
    this.#ramSectionId = sectionId;
    // A source opens it before anything else, so this one never will.
    if (!this.#returnPath) this.#target.missReturnPath();
  }

  ramBlocks(blocks: readonly AnnouncedBlock[]): void {
    this.#target.takeBlocks(blocks);
  }

  zeroPage(idstr: string, offset: number): void {
    this.#target.placeZeroPage(idstr, offset);
  }

  syncMarker(): void {
    this.#syncPoints.marker();
    this.#target.passSyncPoint();
  }

  ramSectionEnd(): void {
    if (this.#syncPoints.sectionEnd()) this.#target.passSyncPoint();
  }

  fullSection(header: SectionHeader, reader: ByteReader): boolean {
    if (this.#target.config.capture) {
      const data = readOpaqueSection(reader, header.sectionId, this.#ramSectionId);
      const section = encodeFullSection(header, data);
      this.#target.budget.take(STATE_COPIES * section.byteLength, "sections in front of the RAM");
      this.#early.append(section);
      return true;
    }
    if (isOwnSection(header, deviceSummarySection)) {
      this.#target.expectDevices(deviceSummarySection.decode(reader));
      return true;
    }
    if (!isOwnSection(header, digestSection)) {
      if (!this.#target.goesOn) return false;
      const device = JSON.stringify(header.idstr);
      throw mismatch("SECTION", `${device} is a guest's device, kept with option capture only`);
    }
    this.#digests = digestSection.decode(reader);
    return true;
  }

  /** Compares digests if the sender sent any; without, no block has one. */
  verify(): void {
    if (this.#digests !== undefined || this.#target.config.verify) {
      this.#target.compareDigests(this.#digests ?? new Map());
    }
  }

  /** What was not RAM, for a guest with that uuid; undefined unless it was to be captured. */
  guestState(uuid: Uint8Array): GuestState | undefined {
    if (!this.#target.config.capture) return undefined;
    const { machine = "", pageBits, uuid: validated } = this.#configuration ?? {};
    return {
      machine,
      pageBits,
      uuid,
      validateUuid: validated !== undefined,
      ramSectionId: this.#ramSectionId ?? RAM_SECTION_ID,
      early: this.#early.bytes.slice(),
      switchoverStart: this.#switchoverStart,
      syncMode: this.#syncPoints.mode,
      devices: this.#devices,
    };
  }

  /**
   * Checks that the source still waits for the last word; without a return path it never does.
   *
   * @throws {ChannelError} when it has gone.
   */
  requireSource(connection: Connection): void {
    if (!this.#returnPath || !connection.hasEnded()) return;
    throw new ChannelError(
      "ERR_MULTIFD_CHANNEL_ENDED",
      "Cannot load devices: the source ended the connection before it was told that all is in place",
    );
  }

  /** Tells the sender that everything is in place. */
  confirm(): void {
    if (this.#returnPath) sendShut(this.#replies, SHUT_OK);
    this.#confirmed = true;
  }

  /**
   * Checks that a guest's source, told so, ends its connection.
   *
   * @throws {StreamError} when it stays.
   */
  requireSourceEnd(connection: Connection): void {
    const { capture, timeouts } = this.#target.config;
    if (this.#returnPath && capture) {
      requireSourceEnd(connection, this.#replies, timeouts.stallMs);
    }
  }

  /** Whether the source understands why it is refused. */
  get understands(): boolean {
    return this.#understands;
  }

  /** Tells the source that it fails here, and why if it is of this library. */
  reportFailure(connection: Connection, error: unknown, phase: string): void {
    const migrates = !this.#confirmed;
    if (!this.#returnPath || (!migrates && !this.#understands)) return;
    tellFailure({ connection, understands: this.#understands, migrates }, error, phase);
  }

  #requireFitting(): void {
    if (this.#refusal !== undefined) throw this.#refusal;
  }
}
