/**
 * A receive channel: reads packets, puts their pages in place and stops at sync points (engine
 * description, section 2). Runs on a worker until its connection ends.
 *
 * A packet is two system calls, as a rule: one for the header and one for the payload, which comes
 * back when all of it is in place. Taking what has arrived of the next header along would save the
 * first, but then the second returns with each piece that the network brings.
 *
 * @module
 */
import type { PageDecoder, PayloadSource } from "../codec/codec.ts";
import { createDecoder, methodFlag, type ResolvedCompression } from "../codec/registry.ts";
import { ChannelError, type PacketError, TimeoutError } from "../errors.ts";
import type { BlockTable } from "../memory/block_table.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { ReceivingConnection } from "../net/connection.ts";
import { IovecList } from "../memory/iovec_list.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { HANDSHAKE_BYTES } from "../wire/handshake.ts";
import { COMMON_HEADER_BYTES, decodeFlags, PacketFlag } from "../wire/packet.ts";
import type { DeviceQueue } from "./device_queue.ts";
import { DeviceReceiver } from "./device_receiver.ts";
import { PacketPlacer } from "./packet_placer.ts";
import { leftOver } from "./receive_end.ts";
import type { ReceiveState } from "./receive_state.ts";
import type { ChannelCounters } from "./statistics.ts";

/** What a receive channel is made of. */
interface ReceiveChannelParts {
  readonly channel: number;
  readonly pageSize: number;
  readonly compression: ResolvedCompression;
  readonly state: ReceiveState;
  readonly control: SessionControl;
  readonly blocks: BlockTable;
  readonly counters: ChannelCounters;
  /** Where device state goes. */
  readonly devices: readonly DeviceQueue[];
  /** Where pages go, if not into the blocks. */
  readonly placer?: PacketPlacer | undefined;
  /** How long to stand at a sync point while nothing moves in the session. */
  readonly idleMs: number;
}

/** See the module comment. */
export class ReceiveChannel implements Disposable, PayloadSource {
  readonly #parts: ReceiveChannelParts;
  readonly #decoder: PageDecoder;
  readonly #placer: PacketPlacer;
  readonly #deviceReceiver: DeviceReceiver;
  readonly #iovecs = new IovecList();
  #headerFilled = 0;
  #connection: ReceivingConnection | undefined;

  /** @throws {MissingLibraryError} when the codec's library is not there. */
  constructor(parts: ReceiveChannelParts) {
    this.#parts = parts;
    this.#placer =
      parts.placer ??
      new PacketPlacer({
        pageSize: parts.pageSize,
        methodFlag: methodFlag(parts.compression.method),
      });
    const { header, headerBytes } = this.#placer;
    const { devices, counters } = parts;
    this.#deviceReceiver = new DeviceReceiver(devices, counters, header, headerBytes);
    counters.setCodec(parts.compression.engine, undefined);
    this.#decoder = createDecoder(parts.compression, parts.pageSize);
  }

  /** Serves packets until the peer ends the connection at a packet boundary. */
  run(connection: ReceivingConnection): void {
    const { state, channel } = this.#parts;
    try {
      this.#serve(connection);
    } catch (error) {
      // When the end is ours and not the peer's, the error must not say that it went away.
      const isEnd = error instanceof ChannelError && error.code === "ERR_MULTIFD_CHANNEL_ENDED";
      if (!isEnd || !state.closing) throw error;
      throw leftOver(channel, "it is in the middle of a packet");
    }
  }

  #serve(connection: ReceivingConnection): void {
    const { blocks, channel, counters, state } = this.#parts;
    const { packet, headerBytes, runs } = this.#placer;
    this.#connection = connection;
    counters.addBytes(HANDSHAKE_BYTES); // read by the acceptor
    while (this.#beginPacket(connection)) {
      // The first bytes tell whether the rest has the length of a RAM packet at all.
      if ((decodeFlags(this.#placer.headerView) & PacketFlag.DEVICE_STATE) !== 0) {
        if (state.closing) throw this.#late();
        this.#headerFilled = this.#deviceReceiver.receive(connection, this.#headerFilled);
        state.noteUnderWay(channel, this.#headerFilled > 0 || connection.holdsBytes);
        continue;
      }
      this.#readHeader(connection, headerBytes);
      blocks.refresh();
      if (state.closing) this.#requireEmpty();
      const hasPages = this.#placer.place(blocks.blocks);
      const { normalPages, zeroPages, payloadBytes, sync } = packet;
      if (hasPages) state.notePages(channel);
      this.#headerFilled = 0;
      if (normalPages > 0) {
        this.#decoder.decode(runs, payloadBytes, this);
        this.#placer.placed(blocks.blocks);
      }
      if (hasPages) {
        counters.addPacket(headerBytes + payloadBytes, normalPages, zeroPages);
        this.#placer.delivered();
      }
      state.noteUnderWay(channel, connection.holdsBytes);
      if (!sync) continue;
      // A sync point may come with pages (before QEMU 9.0), whose packet has been counted.
      counters.addSync(hasPages ? 0 : headerBytes);
      this.#standAtSync();
    }
    state.noteUnderWay(channel, false); // all that was here was the connection's end
  }

  receive(address: number, bytes: number): void {
    this.#iovecs.clear();
    this.#iovecs.append(address, bytes);
    this.#receivePayload();
  }

  receiveRuns(runs: PageRuns): void {
    this.#iovecs.clear();
    this.#iovecs.appendRuns(runs);
    this.#receivePayload();
  }

  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }

  /**
   * Reads the bytes that tell what kind of packet comes; false when the connection ended before any.
   * One that has begun is told at once: its sender may leave it at that.
   */
  #beginPacket(connection: ReceivingConnection): boolean {
    if (!this.#readHeader(connection, 1)) return false;
    this.#parts.state.noteUnderWay(this.#parts.channel, true);
    return this.#readHeader(connection, COMMON_HEADER_BYTES);
  }

  /** Reads the first `needed` bytes of a header; false when the connection ended before any. */
  #readHeader(connection: ReceivingConnection, needed: number): boolean {
    const { header, headerBytes } = this.#placer;
    const filled = this.#headerFilled;
    if (filled >= needed) return true;
    const start = performance.now();
    const got = connection.receiveSome(
      header.address + filled,
      needed - filled,
      headerBytes - filled,
      filled === 0,
    );
    this.#headerFilled += got;
    this.#parts.counters.addTransfer(performance.now() - start);
    return got > 0;
  }

  #receivePayload(): void {
    const start = performance.now();
    this.#connection!.receiveList(this.#iovecs);
    this.#parts.counters.addTransfer(performance.now() - start);
  }

  /** Sources up to QEMU 8.2 may end with a packet that has neither pages nor SYNC. */
  #requireEmpty(): void {
    const { packet } = this.#placer;
    packet.decode(this.#parts.blocks.blocks);
    if (packet.normalPages + packet.zeroPages > 0 || packet.sync) throw this.#late();
  }

  #late(): PacketError {
    return leftOver(this.#parts.channel, "there is another packet");
  }

  #standAtSync(): void {
    const { state, channel, control, idleMs } = this.#parts;
    state.noteSync(channel);
    state.syncReached.post();
    const result = state.released(channel).takeWhileActive(idleMs, control);
    if (result === "taken") {
      if (!state.standsBehindEnd(channel)) return;
      throw leftOver(channel, "it stands at a sync point that the main stream does not have");
    }
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
