/**
 * Rehearses the page path until the JIT has compiled it: a channel's own code moves scratch pages
 * over a socket pair. A channel thread is young and so is its code; without the rehearsal a third of
 * the CPU time of a 1 GiB transfer went into running it interpreted and into compiling it, at the
 * moment when the guest waits. The channels do it while the connections are being made.
 *
 * @module
 */
import { collectGarbage } from "../../ffi/runtime/runtime.ts";
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { RawEncoder } from "../codec/none.ts";
import type { ResolvedCompression } from "../codec/registry.ts";
import { PACKETS_PER_JOB_MIN, TIMEOUTS_DEFAULT } from "../limits.ts";
import { BlockTable, type TableBlock } from "../memory/block_table.ts";
import { SocketPair } from "../net/socket_pair.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { SessionControl } from "../sync/session_control.ts";
import { ramPacketBytes } from "../wire/packet.ts";
import { UUID_BYTES } from "../wire/uuid.ts";
import { NOISE_PAGE_STEP, warmUpDecoder, warmUpEncoder } from "./codec_warm_up.ts";
import { rehearsalQueue, warmUpDeviceReceiving, warmUpDeviceSending } from "./device_warm_up.ts";
import { isPractised, practise } from "./practice.ts";
import { PacketBuilder } from "../engine/packet_builder.ts";
import { PacketPlacer } from "../engine/packet_placer.ts";
import { ReceiveChannel } from "../engine/receive_channel.ts";
import { ReceiveState } from "../engine/receive_state.ts";
import { SendChannel } from "../engine/send_channel.ts";
import { SendState } from "../engine/send_state.ts";
import { Payload } from "../engine/slot.ts";
import { StatisticsTable } from "../engine/statistics.ts";

/**
 * How often the loops over a packet's pages are rehearsed. The last compiler takes a loop after some
 * 100,000 rounds; a packet has 128 and the slower tiers take their share first.
 */
const LOOPED_PACKETS = 2500;

/** Packets that go through a socket: what runs once per packet is soon compiled as far as it pays. */
const SENT_PACKETS = 400;

/** Every so many pages of a looped packet one is zero: both branches run, and few are cleared. */
const ZERO_PAGE_STEP = 8;

/**
 * Bytes in the socket pair at once. They fit its default buffer with what the kernel adds to them:
 * sender and receiver are one thread here, which would wait for itself.
 */
const IN_FLIGHT_BYTES = 98_304;

/** Nobody stops a rehearsal; it ends by itself. */
const rehearsalControl = new SessionControl();

/** What a channel is going to do. */
export interface ChannelPlan {
  readonly pageSize: number;
  readonly compression: ResolvedCompression;
  /** Whether there will be device state too. */
  readonly devices: boolean;
}

/**
 * Rehearses a send channel: builds packets and writes them. Does what this thread has not rehearsed
 * yet, and leaves the rest to the next time when `session` stops.
 */
export function warmUpSender(plan: ChannelPlan, session: Stoppable): void {
  const whole = `send ${JSON.stringify(plan)}`;
  if (session.stopping || isPractised(whole)) return;
  rehearseSending(plan, session);
  practise(whole, 1, session, () => 1);
  releaseScratch();
}

function rehearseSending(plan: ChannelPlan, session: Stoppable): void {
  const { pageSize, compression, devices } = plan;
  using rehearsal = new Rehearsal(pageSize);
  const { builder, block, mixedPages, sparsePages, table, scratch, packetsInFlight } = rehearsal;
  practise(`build ${pageSize}`, LOOPED_PACKETS, session, (packet) => {
    builder.buildPages(block, mixedPages, 0, mixedPages.length, packet);
    return 1;
  });
  const options = { channels: 1, clients: 1, pageSize };
  const state = SendState.create(options, rehearsalControl);
  using channel = new SendChannel({
    channel: 0,
    uuid: new Uint8Array(UUID_BYTES),
    compression: RAW,
    detectZeroPages: true,
    bandwidth: undefined,
    state,
    control: rehearsalControl,
    blocks: table,
    counters: new StatisticsTable(1).channel(0),
  });
  using pair = makePair();
  const slot = state.slots[state.workingSlot(0)];
  const packets = Math.min(packetsInFlight, PACKETS_PER_JOB_MIN);
  for (let job = 0; job < packets; job++) slot.pages.set(sparsePages, job * sparsePages.length);
  practise(`send ${pageSize}`, SENT_PACKETS, session, () => {
    slot.type = Payload.RAM;
    slot.pageCount = packets * sparsePages.length;
    channel.serve(pair.near, slot);
    pair.far.receive(scratch.address, packets * sparsePacketBytes(pageSize));
    return packets;
  });
  if (!session.stopping) warmUpEncoder(compression, block, session);
  if (devices && !session.stopping) warmUpDeviceSending(channel, slot, pair, session);
}

/**
 * Rehearses a receive channel: reads packets and puts their pages in place. As {@linkcode warmUpSender}.
 */
export function warmUpReceiver(plan: ChannelPlan, session: Stoppable): void {
  const whole = `receive ${JSON.stringify(plan)}`;
  if (session.stopping || isPractised(whole)) return;
  rehearseReceiving(plan, session);
  practise(whole, 1, session, () => 1);
  releaseScratch();
}

function rehearseReceiving(plan: ChannelPlan, session: Stoppable): void {
  const { pageSize, compression, devices } = plan;
  using rehearsal = new Rehearsal(pageSize);
  const { builder, block, mixedPages, sparsePages, table, scratch, packetsInFlight } = rehearsal;
  const placer = new PacketPlacer({ pageSize, methodFlag: 0 });
  const queue = devices ? rehearsalQueue() : undefined;
  using channel = new ReceiveChannel({
    channel: 0,
    pageSize,
    compression: RAW,
    state: new ReceiveState(1, rehearsalControl),
    control: rehearsalControl,
    blocks: table,
    counters: new StatisticsTable(1).channel(0),
    devices: queue === undefined ? [] : [queue],
    placer,
    idleMs: TIMEOUTS_DEFAULT.idleMs,
  });
  builder.buildPages(block, mixedPages, 0, mixedPages.length, 0);
  copyMemory(placer.header.address, builder.headerAddress, placer.headerBytes);
  practise(`place ${pageSize}`, LOOPED_PACKETS, session, () => {
    placer.place(table.blocks);
    placer.placed(table.blocks);
    return 1;
  });
  builder.buildPages(block, sparsePages, 0, sparsePages.length, 0);
  const bytes = sparsePacketBytes(pageSize);
  let gathered = false;
  practise(`receive ${pageSize}`, SENT_PACKETS, session, () => {
    using pair = makePair();
    if (!gathered) {
      // Once through a socket, which is how the packet's scattered parts become one piece.
      pair.near.sendList(builder.iovecs);
      pair.far.receive(scratch.address, bytes);
      gathered = true;
    }
    for (let index = 0; index < packetsInFlight; index++) {
      pair.near.send(scratch.address, bytes);
    }
    pair.near.endSending();
    channel.run(pair.far);
    return packetsInFlight;
  });
  if (!session.stopping) warmUpDecoder(compression, block, session);
  if (queue !== undefined && !session.stopping)
    warmUpDeviceReceiving(channel, queue, makePair, session);
}

function makePair(): SocketPair {
  return new SocketPair(rehearsalControl);
}

/** A young thread would not collect for a long time, and a megabyte a channel counts. */
function releaseScratch(): void {
  collectGarbage();
}

const RAW = { method: "none", level: 1 } as const;

/** Bytes of a packet of the pages {@linkcode Rehearsal.sparsePages}. */
function sparsePacketBytes(pageSize: number): number {
  return ramPacketBytes(pageSize) + pageSize;
}

/** Bytes that do not compress (xorshift). */
function fillWithNoise(bytes: Uint8Array, at: number, length: number): void {
  let word = 0x9e37_79b9 ^ at;
  for (let index = at; index < at + length; index++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    bytes[index] = word;
  }
}

/** A small block of scratch memory and what it takes to send it. */
class Rehearsal implements Disposable {
  readonly table: BlockTable;
  readonly block: TableBlock;
  readonly builder: PacketBuilder;
  /** A packet's pages, most of them normal: it costs little to look at them. */
  readonly mixedPages: Uint32Array;
  /** A packet's pages, one of them normal: it costs little to send them. */
  readonly sparsePages: Uint32Array;
  /** Packets of sparse pages that may be on their way at once. */
  readonly packetsInFlight: number;
  /** Room for what is on its way. */
  readonly scratch = new Arena(IN_FLIGHT_BYTES);
  readonly #memory: Arena;

  constructor(pageSize: number) {
    const format = { pageSize, methodFlag: 0, detectZeroPages: true };
    this.builder = new PacketBuilder(format, new RawEncoder());
    const { pagesMax } = this.builder;
    this.mixedPages = Uint32Array.from({ length: pagesMax }, (_, page) => page);
    this.sparsePages = new Uint32Array(pagesMax); // page 0 is zero
    this.sparsePages[0] = 1;
    this.packetsInFlight = Math.floor(IN_FLIGHT_BYTES / sparsePacketBytes(pageSize));
    const bytes = pagesMax * pageSize;
    this.#memory = new Arena(bytes);
    const { u8, address } = this.#memory;
    for (let page = 0; page < pagesMax; page++) {
      if (page % ZERO_PAGE_STEP > 0) u8[page * pageSize] = 1;
      if (page % NOISE_PAGE_STEP === 1) fillWithNoise(u8, page * pageSize, pageSize);
    }
    this.table = new BlockTable(bytes);
    this.block = this.table.add({
      idstr: "rehearsal",
      bytes,
      pages: pagesMax,
      pageSize,
      segments: [{ address, bytes, buffer: this.#memory.buffer }],
      segmentBytes: bytes,
      zeroed: false,
    });
  }

  /** Memory known by its address alone is collected; touching it here is what keeps it until now. */
  [Symbol.dispose](): void {
    this.#memory.u8.fill(0, 0, 1);
    this.scratch.u8.fill(0, 0, 1);
  }
}
