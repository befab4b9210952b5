/**
 * A send channel: takes jobs out of its mailbox, finds zero pages, encodes the others, and writes
 * packets (engine description, section 1.3). Runs on a worker until the session stops.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { isZero } from "../../ffi/libc.ts";
import type { PageEncoder } from "../codec/codec.ts";
import { createEncoder, methodFlag, type ResolvedCompression } from "../codec/registry.ts";
import { pageAddress, type BlockTable } from "../memory/block_table.ts";
import { PageRuns } from "../memory/page_runs.ts";
import type { Connection } from "../net/connection.ts";
import { IovecList } from "../net/iovec_list.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { encodeHandshake, HANDSHAKE_BYTES } from "../wire/handshake.ts";
import { packetPages, RamPacketEncoder, ramPacketBytes } from "../wire/packet.ts";
import { SyncRequest, type ChannelWords, type SendState } from "./send_state.ts";
import { Payload, type Slot } from "./slot.ts";
import type { ChannelCounters } from "./statistics.ts";

/** What a send channel is made of. */
export interface SendChannelParts {
  readonly channel: number;
  readonly uuid: Uint8Array;
  readonly compression: ResolvedCompression;
  /** Whether this thread looks for zero pages. */
  readonly detectZeroPages: boolean;
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
  readonly #methodFlag: number;
  readonly #header: Arena;
  readonly #packet: RamPacketEncoder;
  readonly #packetBytes: number;
  readonly #runs: PageRuns;
  readonly #sorted: Uint32Array;
  readonly #iovecs = new IovecList();
  #workingSlot: number;

  /** @throws {MissingLibraryError} when the codec's library is not there. */
  constructor(parts: SendChannelParts) {
    const { pageSize } = parts.state.handle;
    this.#parts = parts;
    this.#words = parts.state.channel(parts.channel);
    this.#workingSlot = parts.state.workingSlot(parts.channel);
    this.#methodFlag = methodFlag(parts.compression.method);
    this.#packetBytes = ramPacketBytes(pageSize);
    this.#header = new Arena(this.#packetBytes + HANDSHAKE_BYTES);
    const at = this.#header.reserve(this.#packetBytes);
    this.#packet = new RamPacketEncoder(
      new DataView(this.#header.buffer, at, this.#packetBytes),
      pageSize,
    );
    this.#runs = new PageRuns(packetPages(pageSize));
    this.#sorted = new Uint32Array(packetPages(pageSize));
    this.#encoder = createEncoder(parts.compression);
  }

  /** Writes the handshake; the first bytes on the connection. */
  sendHandshake(connection: Connection): void {
    const at = this.#header.reserve(HANDSHAKE_BYTES);
    const view = new DataView(this.#header.buffer, at, HANDSHAKE_BYTES);
    encodeHandshake(view, this.#parts.uuid, this.#parts.channel);
    connection.send(this.#header.address + at, HANDSHAKE_BYTES);
    this.#parts.counters.addBytes(HANDSHAKE_BYTES);
  }

  /** Serves jobs and syncs until the session stops. */
  run(connection: Connection): void {
    const { state, control, counters } = this.#parts;
    state.channelsReady.post();
    while (!control.stopping) {
      const waitStart = performance.now();
      const woken = this.#words.work.take(Infinity);
      counters.addIdle(performance.now() - waitStart);
      if (woken !== "taken") return;
      // A job is served before a sync that is pending with it: the sync was posted after the job.
      if (this.#words.jobPending) {
        this.#workingSlot = this.#words.collect(this.#workingSlot);
        state.channelsReady.post();
        this.#serve(connection, state.slots[this.#workingSlot]);
      } else {
        if (this.#words.takeSync() === SyncRequest.ALL) this.#sendSync(connection);
        this.#words.syncDone.post();
        state.channelsReady.post();
      }
    }
  }

  [Symbol.dispose](): void {
    this.#encoder[Symbol.dispose]();
  }

  #serve(connection: Connection, slot: Slot): void {
    if (slot.type === Payload.RAM) this.#sendPages(connection, slot);
    slot.type = Payload.NONE;
    slot.pageCount = 0;
  }

  #sendPages(connection: Connection, slot: Slot): void {
    const { blocks, state, counters, detectZeroPages } = this.#parts;
    const block = blocks.blocks[slot.blockIndex];
    const count = slot.pageCount;
    const pages = detectZeroPages ? this.#sorted : slot.pages;
    const normal = detectZeroPages ? this.#sortZeroPages(slot, count) : count;
    this.#runs.assign(block, pages, 0, normal);
    this.#iovecs.clear();
    this.#iovecs.append(this.#header.address, this.#packetBytes);
    const payloadBytes = normal === 0 ? 0 : this.#encoder.encode(this.#runs, this.#iovecs);
    this.#packet.encodePages(
      block,
      this.#methodFlag,
      state.takePacketNumber(),
      pages,
      normal,
      count - normal,
      payloadBytes,
    );
    const sendStart = performance.now();
    connection.sendList(this.#iovecs);
    counters.addTransfer(performance.now() - sendStart);
    counters.addPacket(this.#packetBytes + payloadBytes, normal, count - normal);
  }

  /** Copies the page numbers, normal pages first and in order; returns how many are normal. */
  #sortZeroPages(slot: Slot, count: number): number {
    const block = this.#parts.blocks.blocks[slot.blockIndex];
    const { pageSize } = block;
    const sorted = this.#sorted;
    let normal = 0;
    let zero = count;
    for (let index = 0; index < count; index++) {
      const page = slot.pages[index];
      if (isZero(pageAddress(block, page), pageSize)) sorted[--zero] = page;
      else sorted[normal++] = page;
    }
    return normal;
  }

  #sendSync(connection: Connection): void {
    this.#packet.encodeSync(this.#parts.state.takePacketNumber());
    connection.send(this.#header.address, this.#packetBytes);
    this.#parts.counters.addSync(this.#packetBytes);
  }
}
