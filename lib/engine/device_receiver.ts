/**
 * The part of a receive channel that reads device-state packets: header, VFIO's header if the device
 * has it, then the payload straight into the device's queue.
 *
 * The header buffer is shared with RAM packets and read ahead up to their length, so behind a
 * device-state header there may already be payload, and behind that the next packet.
 *
 * @module
 */
import type { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { DEVICE_PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { ReceivingConnection } from "../net/connection.ts";
import { IovecList } from "../memory/iovec_list.ts";
import {
  DEVICE_PACKET_BYTES,
  DevicePacketDecoder,
  VFIO_HEADER_BYTES,
  VfioHeaderDecoder,
} from "../wire/device_packet.ts";
import { packetError } from "../wire/packet.ts";
import type { DeviceQueue } from "./device_queue.ts";
import type { ChannelCounters } from "./statistics.ts";

/** See the module comment. One object serves a channel for its whole life. */
export class DeviceReceiver {
  readonly #devices: readonly DeviceQueue[];
  readonly #counters: ChannelCounters;
  readonly #header: Arena;
  readonly #capacity: number;
  readonly #packet: DevicePacketDecoder;
  readonly #vfio: VfioHeaderDecoder;
  readonly #iovecs = new IovecList();
  #filled = 0;

  /**
   * @param header The channel's header buffer.
   * @param capacity Bytes it is read ahead to, at least those of both headers.
   */
  constructor(
    devices: readonly DeviceQueue[],
    counters: ChannelCounters,
    header: Arena,
    capacity: number,
  ) {
    this.#devices = devices;
    this.#counters = counters;
    this.#header = header;
    this.#capacity = capacity;
    const view = new DataView(header.buffer, 0, DEVICE_PACKET_BYTES);
    this.#packet = new DevicePacketDecoder(view, DEVICE_PAYLOAD_BYTES_MAX);
    this.#vfio = new VfioHeaderDecoder(
      new DataView(header.buffer, DEVICE_PACKET_BYTES, VFIO_HEADER_BYTES),
    );
  }

  /**
   * Reads one packet of which the first `filled` bytes are in the header buffer.
   *
   * @returns Bytes of the next packet that are in the header buffer now.
   * @throws {PacketError | DeviceError | LimitError} before payload is read that has no place.
   */
  receive(connection: ReceivingConnection, filled: number): number {
    this.#filled = filled;
    if (this.#devices.length === 0) {
      throw packetError(
        "FLAGS",
        "it is a device-state packet, and no device is registered here; " +
          "options devices and deviceStateCompressed must be the same on both sides",
      );
    }
    const start = performance.now();
    this.#fill(connection, DEVICE_PACKET_BYTES);
    this.#packet.decode(this.#devices);
    const queue = this.#devices[this.#packet.device];
    const isVfio = queue.handle.format === "vfio";
    const headerBytes = DEVICE_PACKET_BYTES + (isVfio ? VFIO_HEADER_BYTES : 0);
    const bytes = this.#packet.payloadBytes - (headerBytes - DEVICE_PACKET_BYTES);
    const idx = isVfio ? this.#reserve(connection, queue, bytes) : queue.reserveNext(bytes);
    this.#receiveState(connection, queue.addressOf(idx), headerBytes, bytes);
    this.#counters.addTransfer(performance.now() - start);
    this.#counters.addDeviceState(headerBytes, bytes);
    queue.commit(idx);
    return this.#filled;
  }

  #reserve(connection: ReceivingConnection, queue: DeviceQueue, bytes: number): number {
    if (bytes >= 0) this.#fill(connection, DEVICE_PACKET_BYTES + VFIO_HEADER_BYTES);
    this.#vfio.decode(this.#packet.payloadBytes);
    return queue.reserve(this.#vfio.idx, this.#vfio.config, bytes);
  }

  /** Moves the state to its place: first what was read ahead, then the rest from the connection. */
  #receiveState(
    connection: ReceivingConnection,
    address: number,
    from: number,
    bytes: number,
  ): void {
    const header = this.#header;
    const ahead = Math.min(this.#filled - from, bytes);
    if (ahead > 0) copyMemory(address, header.address + from, ahead);
    if (ahead === bytes) {
      header.u8.copyWithin(0, from + ahead, this.#filled);
      this.#filled -= from + ahead;
      return;
    }
    const iovecs = this.#iovecs;
    iovecs.clear();
    iovecs.append(address + ahead, bytes - ahead);
    connection.receiveList(iovecs);
    this.#filled = 0;
  }

  #fill(connection: ReceivingConnection, needed: number): void {
    if (this.#filled >= needed) return;
    this.#filled += connection.receiveSome(
      this.#header.address + this.#filled,
      needed - this.#filled,
      this.#capacity - this.#filled,
      false,
    );
  }
}
