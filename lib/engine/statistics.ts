/**
 * Counters of a session in shared memory. Each channel writes its own row and nobody else's, so no
 * atomics are needed; readers see every field whole, rows may be a packet apart from each other.
 *
 * @module
 */
import { ENGINE_NAMES, type EngineName } from "../codec/engine.ts";
import { TLS_PROTOCOL, TLS_SUITES, type TlsStatistics, type TlsSuite } from "../net/tls_suites.ts";

/** Fields of a channel's row, 64-bit floats: counts stay exact up to 2^53. */
const Field = {
  PACKETS: 0,
  BYTES: 1,
  NORMAL_PAGES: 2,
  ZERO_PAGES: 3,
  SYNCS: 4,
  IDLE_MS: 5,
  TRANSFER_MS: 6,
  DEVICE_BYTES: 7,
  ENCODE_MS: 8,
  ENGINE: 9, // place among the engines, from 1 on; 0 for none
  LEVEL: 10, // LEVEL_BASE more than the level; 0 for none
} as const;
const ROW_FIELDS = 16; // 128 bytes, so that no two threads share a cache line
const MAIN_ROWS = 1; // row 0 belongs to the thread of the main connection

const LEVEL_BASE = 1000; // zstd has levels below 0

/** Counters of one channel. */
export interface ChannelStatistics {
  /** Packets with pages or device state, SYNC packets not counted. */
  readonly packets: number;
  /** Bytes on the wire, headers and handshake included. */
  readonly bytes: number;
  /** Pages whose content was on the wire. */
  readonly normalPages: number;
  /** Pages that were announced as zero. */
  readonly zeroPages: number;
  /** Bytes of device state, headers not counted. */
  readonly deviceBytes: number;
  /** Sync points passed. */
  readonly syncs: number;
  /** Time without work, in milliseconds. */
  readonly idleMs: number;
  /** Time inside socket calls, in milliseconds; on a receiver this includes waiting for data. */
  readonly transferMs: number;
  /** Time of looking for zero pages and encoding, in milliseconds; 0 on a receiver. */
  readonly encodeMs: number;
  /** Library that encodes or decodes; absent for method none. */
  readonly engine?: EngineName;
  /** Compression level in use; absent on a receiver and for methods without levels. */
  readonly level?: number;
}

/** Counters of a session; all are totals since its start. */
export interface Statistics {
  /** Milliseconds from the first queued page (or arriving connection) to now or to the end. */
  readonly elapsedMs: number;
  /** Bytes of all blocks. */
  readonly ramBytes: number;
  /** Bytes of pages handled so far, normal and zero, all rounds. */
  readonly pageBytes: number;
  /** Bytes on all channels and the main connection. */
  readonly wireBytes: number;
  /** Bytes on the multifd channels alone. */
  readonly multifdBytes: number;
  readonly normalPages: number;
  readonly zeroPages: number;
  /** Bytes of device state on the channels, headers not counted. */
  readonly deviceBytes: number;
  /**
   * Milliseconds from the start of the final phase to the receiver's confirmation or to now; 0 before.
   * It starts with SWITCHOVER_START, or where there is none with the last section of the RAM.
   */
  readonly switchoverMs: number;
  /**
   * Rounds. A sender counts fetches of dirty pages as they begin. A receiver and both sides of a relay
   * count sync points that have pages in front of them: rounds too, but every section of a source that
   * synchronises after each (machine types up to 8.0).
   */
  readonly rounds: number;
  /** Connections that a receiver has dropped because they belong to no sender, or to a second one. */
  readonly strangers: number;
  /** How the connections are encrypted; absent without TLS, and before there are any. */
  readonly tls?: TlsStatistics;
  readonly channels: readonly ChannelStatistics[];
}

/** The shared rows. Each thread makes its own object over the same buffer. */
export class StatisticsTable {
  readonly buffer: SharedArrayBuffer;
  readonly #rows: Float64Array;

  constructor(source: SharedArrayBuffer | number) {
    this.buffer =
      typeof source === "number"
        ? new SharedArrayBuffer((MAIN_ROWS + source) * ROW_FIELDS * 8)
        : source;
    this.#rows = new Float64Array(this.buffer);
  }

  /** The row that the thread of `channel` writes. */
  channel(channel: number): ChannelCounters {
    return new ChannelCounters(this.#row(MAIN_ROWS + channel));
  }

  /** The row that the thread of the main connection writes. */
  main(): MainCounters {
    return new MainCounters(this.#row(0));
  }

  /** Everything, as of now. */
  snapshot(channelCount: number, pageSize: number): Statistics {
    const channels = Array.from({ length: channelCount }, (_, index) =>
      this.channel(index).snapshot(),
    );
    const main = this.main();
    const sum = (pick: (row: ChannelStatistics) => number) =>
      channels.reduce((total, row) => total + pick(row), 0);
    const multifdBytes = sum((row) => row.bytes);
    const normalPages = sum((row) => row.normalPages);
    const zeroPages = sum((row) => row.zeroPages) + main.zeroPages;
    return {
      elapsedMs: main.elapsedMs(),
      ramBytes: main.ramBytes,
      pageBytes: (normalPages + zeroPages) * pageSize,
      wireBytes: multifdBytes + main.bytes,
      multifdBytes,
      normalPages,
      zeroPages,
      deviceBytes: sum((row) => row.deviceBytes),
      switchoverMs: main.switchoverMs(),
      rounds: main.rounds,
      strangers: main.strangers,
      ...(main.tls === undefined ? {} : { tls: main.tls }),
      channels,
    };
  }

  #row(index: number): Float64Array {
    return this.#rows.subarray(index * ROW_FIELDS, (index + 1) * ROW_FIELDS);
  }
}

/** Writer and reader of one channel's row. */
export class ChannelCounters {
  readonly #row: Float64Array;

  constructor(row: Float64Array) {
    this.#row = row;
  }

  /** Counts one packet with its header and payload bytes and its pages. */
  addPacket(bytes: number, normalPages: number, zeroPages: number): void {
    this.#row[Field.PACKETS] += 1;
    this.#row[Field.BYTES] += bytes;
    this.#row[Field.NORMAL_PAGES] += normalPages;
    this.#row[Field.ZERO_PAGES] += zeroPages;
  }

  /** Counts one device-state packet with the bytes of its headers and of the state itself. */
  addDeviceState(headerBytes: number, stateBytes: number): void {
    this.#row[Field.PACKETS] += 1;
    this.#row[Field.BYTES] += headerBytes + stateBytes;
    this.#row[Field.DEVICE_BYTES] += stateBytes;
  }

  /** Counts one SYNC packet of `bytes` bytes. */
  addSync(bytes: number): void {
    this.#row[Field.SYNCS] += 1;
    this.#row[Field.BYTES] += bytes;
  }

  /** Counts bytes that belong to no packet, such as the handshake. */
  addBytes(bytes: number): void {
    this.#row[Field.BYTES] += bytes;
  }

  /** Counts time without work. */
  addIdle(ms: number): void {
    this.#row[Field.IDLE_MS] += ms;
  }

  /** Counts time inside socket calls. */
  addTransfer(ms: number): void {
    this.#row[Field.TRANSFER_MS] += ms;
  }

  /** Counts time of making packets. */
  addEncode(ms: number): void {
    this.#row[Field.ENCODE_MS] += ms;
  }

  /** Says who encodes or decodes; the level is absent on a receiver. */
  setCodec(engine: EngineName | undefined, level: number | undefined): void {
    if (engine === undefined) return;
    this.#row[Field.ENGINE] = ENGINE_NAMES.indexOf(engine) + 1;
    if (level !== undefined) this.#row[Field.LEVEL] = LEVEL_BASE + level;
  }

  /** The row as of now. */
  snapshot(): ChannelStatistics {
    const row = this.#row;
    return {
      packets: row[Field.PACKETS],
      bytes: row[Field.BYTES],
      normalPages: row[Field.NORMAL_PAGES],
      zeroPages: row[Field.ZERO_PAGES],
      deviceBytes: row[Field.DEVICE_BYTES],
      syncs: row[Field.SYNCS],
      idleMs: row[Field.IDLE_MS],
      transferMs: row[Field.TRANSFER_MS],
      encodeMs: row[Field.ENCODE_MS],
      ...(row[Field.ENGINE] === 0 ? {} : { engine: ENGINE_NAMES[row[Field.ENGINE] - 1] }),
      ...(row[Field.LEVEL] === 0 ? {} : { level: row[Field.LEVEL] - LEVEL_BASE }),
    };
  }
}

const MainField = {
  BYTES: 0,
  ZERO_PAGES: 1,
  RAM_BYTES: 2,
  ROUNDS: 3,
  START: 4,
  END: 5,
  SWITCHOVER_START: 6,
  SWITCHOVER_END: 7,
  STRANGERS: 8,
  TLS_SUITE: 9, // place among the suites, from 1 on; 0 for none
} as const;

/** Writer and reader of the main connection's row. */
export class MainCounters {
  readonly #row: Float64Array;

  constructor(row: Float64Array) {
    this.#row = row;
  }

  /** Counts bytes of the main connection. */
  addBytes(bytes: number): void {
    this.#row[MainField.BYTES] += bytes;
  }

  /** Counts zero pages that travelled on the main connection. */
  addZeroPages(pages: number): void {
    this.#row[MainField.ZERO_PAGES] += pages;
  }

  /** Counts one round. */
  addRound(): void {
    this.#row[MainField.ROUNDS] += 1;
  }

  /** Counts one connection of somebody who is not received. */
  addStranger(): void {
    this.#row[MainField.STRANGERS] += 1;
  }

  /** Says how the connections are encrypted. */
  setSuite(suite: TlsSuite | undefined): void {
    if (suite !== undefined) this.#row[MainField.TLS_SUITE] = TLS_SUITES.indexOf(suite) + 1;
  }

  /** Sets the length of all blocks together. */
  setRamBytes(bytes: number): void {
    this.#row[MainField.RAM_BYTES] = bytes;
  }

  /** Starts the clock; later calls change nothing. Wall time, since threads' own clocks differ. */
  start(): void {
    if (this.#row[MainField.START] === 0) this.#row[MainField.START] = wallMs();
  }

  /** Stops the clock. */
  end(): void {
    if (this.#row[MainField.START] !== 0) this.#row[MainField.END] = wallMs();
  }

  /** Starts the clock of the final phase; later calls change nothing. */
  startSwitchover(): void {
    if (this.#row[MainField.SWITCHOVER_START] === 0) {
      this.#row[MainField.SWITCHOVER_START] = wallMs();
    }
  }

  /** Stops the clock of the final phase, at that wall time. */
  endSwitchover(atMs = wallMs()): void {
    this.#row[MainField.SWITCHOVER_END] = atMs;
  }

  /** Milliseconds of the final phase so far, 0 before it. */
  switchoverMs(): number {
    const start = this.#row[MainField.SWITCHOVER_START];
    if (start === 0) return 0;
    const { SWITCHOVER_END, END } = MainField;
    return (this.#row[SWITCHOVER_END] || this.#row[END] || wallMs()) - start;
  }

  get bytes(): number {
    return this.#row[MainField.BYTES];
  }

  get zeroPages(): number {
    return this.#row[MainField.ZERO_PAGES];
  }

  get ramBytes(): number {
    return this.#row[MainField.RAM_BYTES];
  }

  get strangers(): number {
    return this.#row[MainField.STRANGERS];
  }

  get tls(): TlsStatistics | undefined {
    const suite = TLS_SUITES[this.#row[MainField.TLS_SUITE] - 1];
    return suite === undefined
      ? undefined
      : { protocol: TLS_PROTOCOL, suite, library: "libgnutls" };
  }

  get rounds(): number {
    return this.#row[MainField.ROUNDS];
  }

  /** Milliseconds on the clock. */
  elapsedMs(): number {
    const start = this.#row[MainField.START];
    if (start === 0) return 0;
    return (this.#row[MainField.END] || wallMs()) - start;
  }
}

/** The time, equal on all threads, in milliseconds. */
export function wallMs(): number {
  return performance.timeOrigin + performance.now();
}
