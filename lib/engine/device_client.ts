/**
 * A producer of device state: `prepare()` gives a buffer to fill in place, `finish()` queues it.
 * Any number of threads may have clients of their own; each client belongs to one thread, which it
 * blocks while no buffer is free or no channel is idle.
 *
 * @module
 */
import { ChannelError, TimeoutError } from "../errors.ts";
import { DEVICE_BUFFER_BYTES } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import {
  DEVICE_PACKET_BYTES,
  encodeDevicePacket,
  encodeVfioHeader,
  VFIO_HEADER_BYTES,
  VFIO_IDX_INVALID,
} from "../wire/device_packet.ts";
import { DeviceSendState, type DeviceSendStateHandle } from "./device_send_state.ts";
import { DeviceTable, type TableDevice } from "./device_table.ts";
import { SendState, type SendStateHandle } from "./send_state.ts";
import { Payload } from "./slot.ts";

/** What makes a client in another thread; cloneable, valid while the session lasts. */
export interface DeviceClientHandle {
  /** What the channels and this client share; for `DeviceClient` only. */
  readonly state: unknown;
  /** The buffers of all slots; for `DeviceClient` only. */
  readonly device: unknown;
  readonly devices: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  /** How long to wait for an idle channel while nothing moves, in milliseconds. */
  readonly limitMs: number;
}

/** A handle as its session makes it. */
export interface DeviceClientParts extends DeviceClientHandle {
  readonly state: SendStateHandle;
  readonly device: DeviceSendStateHandle;
}

/** A buffer to fill, valid until `finish()`. */
export interface PreparedBuffer {
  /** `DEVICE_BUFFER_BYTES` bytes in shared memory, whatever was there before still in them. */
  readonly bytes: Uint8Array;
  /** Address of the first byte, page aligned. */
  readonly address: number;
}

interface SlotBuffer extends PreparedBuffer {
  readonly slot: number;
  readonly packet: DataView;
  readonly vfio: DataView;
}

/** See the module comment. */
export class DeviceClient {
  readonly #handle: DeviceClientHandle;
  readonly #control: SessionControl;
  readonly #state: SendState;
  readonly #buffers: DeviceSendState;
  readonly #devices: DeviceTable;
  /** Views of the slots seen so far: the same few come round again and again. */
  readonly #views: (SlotBuffer | undefined)[] = [];
  #prepared: { readonly buffer: SlotBuffer; readonly device: TableDevice } | undefined;

  constructor(handle: DeviceClientHandle) {
    const { state, device } = handle as DeviceClientParts;
    this.#handle = handle;
    this.#control = new SessionControl(handle.control);
    this.#state = new SendState(state, this.#control);
    this.#buffers = new DeviceSendState(device, this.#control);
    this.#devices = new DeviceTable(handle.devices);
  }

  /**
   * Takes a free buffer for the next piece of a device's state. Each call must be followed by
   * exactly one `finish()` or `finishWith()`.
   *
   * @throws {RangeError} when the device is not registered or a buffer is prepared already.
   * @throws The session's first error when it has failed, {TimeoutError} when no buffer got free.
   */
  prepare(idstr: string, instanceId = 0): PreparedBuffer {
    const device = this.#devices.find(idstr, instanceId);
    if (device === undefined) {
      throw new RangeError(
        `Cannot prepare device state: device ${idstr} instance ${instanceId} is not registered`,
      );
    }
    if (this.#prepared !== undefined) {
      throw new RangeError("Cannot prepare device state: the last buffer is not finished");
    }
    const slot = this.#buffers.take(this.#handle.limitMs);
    if (slot < 0) throw this.#stuck(device, "no buffer got free");
    const buffer = (this.#views[slot] ??= this.#view(slot));
    this.#prepared = { buffer, device };
    return buffer;
  }

  /**
   * Queues the first `length` bytes of the prepared buffer, or cancels when there are none. The
   * buffer must not be touched any more.
   *
   * @param config Whether this is the device's config, its last buffer; only with format `vfio`.
   * @returns Whether something was queued.
   */
  finish(length: number, config = false): boolean {
    const { buffer } = this.#current();
    return this.finishWith(buffer.address, length, config);
  }

  /**
   * As {@linkcode finish}, with memory of the caller's own, which must stay as it is until the
   * session has ended; no copy is made.
   *
   * @param length At most `DEVICE_BUFFER_BYTES`.
   */
  finishWith(address: number, length: number, config = false): boolean {
    const { buffer, device } = this.#current();
    const fits = Number.isInteger(length) && length <= DEVICE_BUFFER_BYTES;
    if (!fits || (config && device.format === "raw")) {
      this.#cancel();
      throw new RangeError(
        fits
          ? `Cannot queue the config of ${device.idstr}: a raw device has none`
          : `Cannot queue ${length} bytes of ${device.idstr}: must be at most ${DEVICE_BUFFER_BYTES}`,
      );
    }
    if (length <= 0 && !config) {
      this.#cancel();
      return false;
    }
    this.#queue(buffer, device, address, Math.max(0, length), config);
    return true;
  }

  /**
   * Queues a copy of `bytes`. State of a `vfio` device may be of any length and is cut into buffers.
   *
   * @throws {RangeError} when a raw buffer or a config is longer than `DEVICE_BUFFER_BYTES`.
   */
  queueDeviceState(idstr: string, instanceId: number, bytes: Uint8Array, config = false): void {
    const device = this.#devices.find(idstr, instanceId);
    if (bytes.byteLength > DEVICE_BUFFER_BYTES && (config || device?.format === "raw")) {
      throw new RangeError(
        `Cannot queue ${bytes.byteLength} bytes of ${idstr} at once: must be at most ${DEVICE_BUFFER_BYTES}`,
      );
    }
    let at = 0;
    do {
      const part = bytes.subarray(at, at + DEVICE_BUFFER_BYTES);
      this.prepare(idstr, instanceId).bytes.set(part);
      this.finish(part.byteLength, config);
      at += part.byteLength;
    } while (at < bytes.byteLength);
  }

  #current(): { readonly buffer: SlotBuffer; readonly device: TableDevice } {
    if (this.#prepared === undefined) {
      throw new RangeError("Cannot finish device state: no buffer is prepared");
    }
    return this.#prepared;
  }

  #cancel(): void {
    this.#buffers.release(this.#current().buffer.slot);
    this.#prepared = undefined;
  }

  #queue(
    buffer: SlotBuffer,
    device: TableDevice,
    address: number,
    length: number,
    config: boolean,
  ): void {
    const { idstr, idBytes, instanceId, format } = device;
    if (device.configs.value > 0 || (config && device.configs.add(1) > 0)) {
      this.#cancel();
      throw new RangeError(
        `Cannot queue state of ${idstr}: its config has been queued, and it is the last`,
      );
    }
    let headerBytes = DEVICE_PACKET_BYTES;
    if (format === "vfio") {
      const idx = device.nextIdx.add(1);
      if (idx === VFIO_IDX_INVALID) {
        throw new RangeError(`Cannot queue state of ${idstr}: its buffer numbers are used up`);
      }
      encodeVfioHeader(buffer.vfio, idx, config);
      headerBytes += VFIO_HEADER_BYTES;
    }
    const payloadBytes = headerBytes - DEVICE_PACKET_BYTES + length;
    encodeDevicePacket(buffer.packet, idBytes, instanceId, payloadBytes);
    const slot = this.#state.slots[buffer.slot];
    slot.type = Payload.DEVICE_STATE;
    slot.setDeviceState(this.#buffers.headerAddress(buffer.slot), headerBytes, address, length);
    this.#prepared = undefined;
    const empty = this.#state.handOff(buffer.slot, this.#handle.limitMs);
    if (empty < 0) throw this.#stuck(device, "no channel got idle");
    this.#buffers.release(empty);
    device.buffers.add(1);
    device.bytes.add(length);
  }

  #view(slot: number): SlotBuffer {
    const header = this.#buffers.headerView(slot);
    const { buffer, byteOffset } = header;
    return {
      slot,
      bytes: this.#buffers.bufferView(slot),
      address: this.#buffers.bufferAddress(slot),
      packet: new DataView(buffer, byteOffset, DEVICE_PACKET_BYTES),
      vfio: new DataView(buffer, byteOffset + DEVICE_PACKET_BYTES, VFIO_HEADER_BYTES),
    };
  }

  /** Why nothing could be had: the session failed, ended, or a channel stalls. */
  #stuck({ idstr }: TableDevice, reason: string): Error {
    const { error } = this.#control;
    if (error !== undefined) return error;
    if (this.#control.stopping) {
      return new ChannelError(
        "ERR_MULTIFD_CHANNEL_STOPPED",
        `Cannot queue state of ${idstr}: the session has ended`,
      );
    }
    return new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_STALL",
      `Cannot queue state of ${idstr}: ${reason} within ${this.#handle.limitMs} ms`,
    );
  }
}
