/**
 * A send channel: takes jobs out of its mailbox, finds zero pages, encodes the others, and writes
 * packets (engine description, section 1.3). Runs on a worker until the session stops.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { yieldProcessor } from "../../ffi/libc.ts";
import type { PageEncoder } from "../codec/codec.ts";
import { createEncoder, methodFlag, type ResolvedCompression } from "../codec/registry.ts";
import { PACKET_PAYLOAD_BYTES } from "../limits.ts";
import type { BlockTable } from "../memory/block_table.ts";
import type { SendingConnection } from "../net/connection.ts";
import { IovecList } from "../memory/iovec_list.ts";
import { BandwidthShare } from "../sync/bandwidth_limit.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { encodeHandshake, HANDSHAKE_BYTES } from "../wire/handshake.ts";
import { LevelGovernor } from "./level_governor.ts";
import { PacketBuilder } from "./packet_builder.ts";
import type { ChannelWords, SendState } from "./send_state.ts";
import { Payload, type Slot } from "./slot.ts";
import type { ChannelCounters } from "./statistics.ts";

/** What a send channel is made of. */
interface SendChannelParts {
  readonly channel: number;
  readonly uuid: Uint8Array;
  readonly compression: ResolvedCompression;
  /** Whether this thread looks for zero pages. */
  readonly detectZeroPages: boolean;
  /** Of the limit on bandwidth; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
  readonly state: SendState;
  readonly control: SessionControl;
  readonly blocks: BlockTable;
  readonly counters: ChannelCounters;
}

/** See the module comment. */
export class SendChannel implements Disposable {
  readonly #parts: SendChannelParts;
  readonly #words: ChannelWords;
  readonly #encoder: PageEncoder;
  readonly #builder: PacketBuilder;
  readonly #bandwidth: BandwidthShare | undefined;
  readonly #governor: LevelGovernor | undefined;
  readonly #deviceState = new IovecList();
  #workingSlot: number;

  /** @throws {MissingLibraryError} when the codec's library is not there. */
  constructor(parts: SendChannelParts) {
    this.#parts = parts;
    this.#words = parts.state.channel(parts.channel);
    this.#workingSlot = parts.state.workingSlot(parts.channel);
    if (parts.bandwidth !== undefined) this.#bandwidth = new BandwidthShare(parts.bandwidth);
    this.#encoder = createEncoder(parts.compression, parts.state.handle.pageSize);
    const { engine, level, autoLevels } = parts.compression;
    if (autoLevels !== undefined) this.#governor = new LevelGovernor(autoLevels, level);
    parts.counters.setCodec(engine, level);
    this.#builder = new PacketBuilder(
      {
        pageSize: parts.state.handle.pageSize,
        methodFlag: methodFlag(parts.compression.method),
        detectZeroPages: parts.detectZeroPages,
      },
      this.#encoder,
    );
  }

  /** Writes the handshake; the first bytes on the connection. */
  sendHandshake(connection: SendingConnection): void {
    const arena = new Arena(HANDSHAKE_BYTES);
    encodeHandshake(arena.view, this.#parts.uuid, this.#parts.channel);
    this.#bandwidth?.pace(HANDSHAKE_BYTES, this.#parts.control);
    connection.send(arena.address, HANDSHAKE_BYTES);
    this.#parts.counters.addBytes(HANDSHAKE_BYTES);
  }

  /** Serves jobs and syncs until the session stops. */
  run(connection: SendingConnection): void {
    const { state, control, counters } = this.#parts;
    state.channelsReady.post();
    let syncDeferred = false;
    while (!control.stopping) {
      const waitStart = performance.now();
      const woken = this.#words.work.take(Infinity);
      counters.addIdle(performance.now() - waitStart);
      if (woken !== "taken") return;
      // The job that is pending with a sync goes first, since it may have been posted before it. Not
      // the next one: producers of device state never pause, and the sync would wait for ever.
      const { syncPending } = this.#words;
      if (this.#words.jobPending && !(syncPending && syncDeferred)) {
        syncDeferred = syncPending;
        this.#workingSlot = this.#words.collect(this.#workingSlot);
        state.channelsReady.post();
        this.serve(connection, state.slots[this.#workingSlot]);
      } else {
        const request = this.#words.takeSync();
        if (request === "sync") this.#sendSync(connection);
        else if (request === "end") connection.endSending();
        syncDeferred = false;
        this.#words.syncDone.post();
      }
    }
  }

  /** Carries out the job in a slot. */
  serve(connection: SendingConnection, slot: Slot): void {
    if (slot.type === Payload.DEVICE_STATE) this.#sendDeviceState(connection, slot);
    else if (slot.type === Payload.STAGED) this.#sendStaged(connection, slot);
    else this.#sendPages(connection, slot);
    slot.type = Payload.NONE;
    slot.pageCount = 0;
  }

  [Symbol.dispose](): void {
    this.#encoder[Symbol.dispose]();
  }

  #sendPages(connection: SendingConnection, slot: Slot): void {
    const { blocks, state, counters } = this.#parts;
    const builder = this.#builder;
    const block = blocks.blocks[slot.blockIndex];
    const { pageCount } = slot;
    for (let first = 0; first < pageCount; first += builder.pagesMax) {
      const count = Math.min(builder.pagesMax, pageCount - first);
      const start = performance.now();
      builder.buildPages(block, slot.pages, first, count, state.takePacketNumber());
      const built = performance.now();
      this.#sendPacket(connection);
      counters.addEncode(built - start);
      this.#adaptLevel(built - start, performance.now() - built);
    }
  }

  #adaptLevel(encodeMs: number, sendMs: number): void {
    const governor = this.#governor;
    if (governor?.observe(encodeMs, sendMs) !== true) return;
    this.#encoder.setLevel?.(governor.level);
    this.#parts.counters.setCodec(this.#parts.compression.engine, governor.level);
  }

  /** A packet that was received goes on with the same pages. */
  #sendStaged(connection: SendingConnection, slot: Slot): void {
    const { blocks, state, counters } = this.#parts;
    const start = performance.now();
    // Its blocks become known when this thread is already running.
    if (slot.blockIndex >= blocks.blocks.length) blocks.refresh();
    const { pages, pageCount, stagedNormalPages: normal } = slot;
    this.#builder.buildStaged(
      blocks.blocks[slot.blockIndex],
      pages,
      normal,
      pageCount - normal,
      slot.staged,
      state.takePacketNumber(),
    );
    const built = performance.now();
    this.#sendPacket(connection);
    counters.addEncode(built - start);
    this.#adaptLevel(built - start, performance.now() - built);
  }

  /** The producer has encoded the packet: header and state lie ready in its slot's memory. */
  #sendDeviceState(connection: SendingConnection, slot: Slot): void {
    const { counters, control } = this.#parts;
    const iovecs = this.#deviceState;
    const { deviceHeaderBytes, deviceState, deviceStateBytes } = slot;
    this.#bandwidth?.pace(deviceHeaderBytes + deviceStateBytes, control);
    // Before the last byte: no sync follows, and who hears of the confirmation may look at once.
    counters.addDeviceState(deviceHeaderBytes, deviceStateBytes);
    const start = performance.now();
    iovecs.clear();
    iovecs.append(slot.deviceHeader, deviceHeaderBytes);
    // In pieces as long as a packet of pages, for the same reason as there.
    for (let done = 0; done < deviceStateBytes;) {
      const bytes = Math.min(PACKET_PAYLOAD_BYTES, deviceStateBytes - done);
      iovecs.append(deviceState + done, bytes);
      connection.sendList(iovecs);
      yieldProcessor();
      iovecs.clear();
      done += bytes;
    }
    connection.sendList(iovecs); // what is left when there is no state
    counters.addTransfer(performance.now() - start);
  }

  #sendPacket(connection: SendingConnection): void {
    const { counters, control } = this.#parts;
    const { iovecs, normalPages, zeroPages } = this.#builder;
    const { bytes } = iovecs;
    this.#bandwidth?.pace(bytes, control);
    const start = performance.now();
    connection.sendList(iovecs);
    counters.addTransfer(performance.now() - start);
    counters.addPacket(bytes, normalPages, zeroPages);
    // On a busy machine the receiver, if it is here, now finds the packet in the processor's cache.
    yieldProcessor();
  }

  #sendSync(connection: SendingConnection): void {
    this.#builder.buildSync(this.#parts.state.takePacketNumber());
    const { bytes } = this.#builder.iovecs;
    this.#bandwidth?.pace(bytes, this.#parts.control);
    connection.sendList(this.#builder.iovecs);
    this.#parts.counters.addSync(bytes);
  }
}
