/**
 * A receive channel: reads packets, puts their pages in place and stops at sync points (engine
 * description, section 2). Runs on a worker until its connection ends.
 *
 * Headers are read ahead: one system call takes the rest of a payload and what has already arrived
 * of the next header. Nothing is done with a header before the packet in front of it is finished,
 * so reading ahead never crosses a sync point.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { clearMemory } from "../../ffi/libc.ts";
import type { PageDecoder, PayloadSource } from "../codec/codec.ts";
import { createDecoder, methodFlag, type ResolvedCompression } from "../codec/registry.ts";
import { ChannelError, TimeoutError } from "../errors.ts";
import { pageAddress, type BlockTable, type TableBlock } from "../memory/block_table.ts";
import { PageRuns } from "../memory/page_runs.ts";
import type { Connection } from "../net/connection.ts";
import { IovecList } from "../net/iovec_list.ts";
import type { SessionControl } from "../sync/session_control.ts";
import {
  COMMON_HEADER_BYTES,
  decodeFlags,
  PacketFlag,
  packetError,
  packetPages,
  RamPacketDecoder,
  ramPacketBytes,
} from "../wire/packet.ts";
import type { ReceiveState } from "./receive_state.ts";
import type { ChannelCounters } from "./statistics.ts";

/** What a receive channel is made of. */
export interface ReceiveChannelParts {
  readonly channel: number;
  readonly pageSize: number;
  readonly compression: ResolvedCompression;
  readonly state: ReceiveState;
  readonly control: SessionControl;
  readonly blocks: BlockTable;
  readonly counters: ChannelCounters;
  /** How long to stand at a sync point. */
  readonly idleMs: number;
}

/** See the module comment. */
export class ReceiveChannel implements Disposable, PayloadSource {
  readonly #parts: ReceiveChannelParts;
  readonly #decoder: PageDecoder;
  readonly #header: Arena;
  readonly #headerView: DataView;
  readonly #packet: RamPacketDecoder;
  readonly #packetBytes: number;
  readonly #runs: PageRuns;
  readonly #iovecs = new IovecList();
  #headerFilled = 0;
  #connection: Connection | undefined;

  /** @throws {MissingLibraryError} when the codec's library is not there. */
  constructor(parts: ReceiveChannelParts) {
    const { pageSize } = parts;
    this.#parts = parts;
    this.#packetBytes = ramPacketBytes(pageSize);
    this.#header = new Arena(this.#packetBytes);
    this.#headerView = new DataView(this.#header.buffer, 0, this.#packetBytes);
    this.#packet = new RamPacketDecoder(this.#headerView, {
      pageSize,
      methodFlag: methodFlag(parts.compression.method),
    });
    this.#runs = new PageRuns(packetPages(pageSize));
    this.#decoder = createDecoder(parts.compression);
  }

  /** Serves packets until the peer ends the connection at a packet boundary. */
  run(connection: Connection): void {
    this.#connection = connection;
    while (this.#readHeader(connection)) {
      const packet = this.#packet;
      this.#parts.blocks.refresh();
      packet.decode(this.#parts.blocks.blocks);
      this.#headerFilled = 0;
      if (packet.normalPages + packet.zeroPages > 0) this.#placePages();
      else if (packet.sync) this.#parts.counters.addSync(this.#packetBytes);
      if (packet.sync) this.#standAtSync();
    }
  }

  receive(address: number, bytes: number): void {
    this.#iovecs.clear();
    this.#iovecs.append(address, bytes);
    this.#receivePayload(bytes);
  }

  receiveRuns(runs: PageRuns): void {
    this.#iovecs.clear();
    this.#iovecs.appendRuns(runs);
    this.#receivePayload(runs.bytes);
  }

  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }

  /** Completes the header; false when the connection ended before its first byte. */
  #readHeader(connection: Connection): boolean {
    const start = performance.now();
    // The first bytes tell whether the rest has the length of a RAM packet at all.
    for (const needed of [COMMON_HEADER_BYTES, this.#packetBytes]) {
      if (this.#headerFilled < needed) {
        const got = connection.receiveSome(
          this.#header.address + this.#headerFilled,
          needed - this.#headerFilled,
          this.#packetBytes - this.#headerFilled,
          this.#headerFilled === 0,
        );
        if (got === 0) return false;
        this.#headerFilled += got;
      }
      if ((decodeFlags(this.#headerView) & PacketFlag.DEVICE_STATE) !== 0) {
        throw packetError("FLAGS", "it is a device-state packet, must be a RAM packet");
      }
    }
    this.#parts.counters.addTransfer(performance.now() - start);
    return true;
  }

  #placePages(): void {
    const packet = this.#packet;
    const block = this.#parts.blocks.blocks[packet.blockIndex];
    const { normalPages, zeroPages, payloadBytes } = packet;
    for (let index = normalPages; index < normalPages + zeroPages; index++) {
      this.#placeZeroPage(block, packet.pages[index]);
    }
    for (let index = 0; index < normalPages; index++) block.received.set(packet.pages[index]);
    if (normalPages > 0) {
      this.#runs.assign(block, packet.pages, 0, normalPages);
      this.#decoder.decode(this.#runs, payloadBytes, this);
    }
    this.#parts.counters.addPacket(this.#packetBytes + payloadBytes, normalPages, zeroPages);
  }

  /** A first zero page of zeroed memory is only marked: touching it would cost a page fault. */
  #placeZeroPage(block: TableBlock, page: number): void {
    const first = block.received.set(page);
    if (first && block.zeroed) return;
    clearMemory(pageAddress(block, page), block.pageSize);
  }

  #receivePayload(bytes: number): void {
    const start = performance.now();
    this.#iovecs.append(this.#header.address, this.#packetBytes);
    this.#connection!.receiveList(this.#iovecs, bytes);
    this.#headerFilled = this.#packetBytes - this.#iovecs.bytes;
    this.#parts.counters.addTransfer(performance.now() - start);
  }

  #standAtSync(): void {
    const { state, channel, idleMs } = this.#parts;
    state.syncReached.post();
    const result = state.released(channel).take(idleMs);
    if (result === "taken") return;
    if (result === "stopped") {
      throw new ChannelError(
        "ERR_MULTIFD_CHANNEL_STOPPED",
        "Cannot pass the sync point: the session was stopped",
      );
    }
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_SYNC",
      `Cannot pass the sync point: the main connection did not reach it within ${idleMs} ms`,
    );
  }
}
