/**
 * Device-state packets and the header that VFIO puts in front of their payload (wire format,
 * section 8). Encoders and decoders work in place and allocate nothing.
 *
 * @module
 */
import { BLOCK_ID_BYTES_MAX } from "../limits.ts";
import { MULTIFD_MAGIC, MULTIFD_VERSION } from "./handshake.ts";
import { decodeFlags, PacketFlag, packetError } from "./packet.ts";

/*
 * Device-state packet, big-endian:
 *
 *    0 u32 magic          4 u32 version         8 u32 flags
 *   12 char[256] idstr, NUL padded
 *  268 u32 instance_id  272 u32 next_packet_size, bytes of payload that follow
 */
const MAGIC_AT = 0;
const VERSION_AT = 4;
const FLAGS_AT = 8;
const IDSTR_AT = 12;
const IDSTR_FIELD_BYTES = BLOCK_ID_BYTES_MAX + 1;
const INSTANCE_ID_AT = IDSTR_AT + IDSTR_FIELD_BYTES;
const NEXT_PACKET_SIZE_AT = INSTANCE_ID_AT + 4;

/** Length of every device-state packet, without payload. */
export const DEVICE_PACKET_BYTES = NEXT_PACKET_SIZE_AT + 4;
if (DEVICE_PACKET_BYTES !== 276) throw new RangeError("Device-state packet must be 276 bytes");

/*
 * VFIO's header, the first bytes of the payload, big-endian:
 *
 *    0 u32 version        4 u32 idx             8 u32 flags
 */
const VFIO_VERSION_AT = 0;
const VFIO_IDX_AT = 4;
const VFIO_FLAGS_AT = 8;
const VFIO_VERSION = 0;
const VFIO_CONFIG_STATE = 1; // flag: this buffer is the device's config, and the last one

/** Bytes of VFIO's header. */
export const VFIO_HEADER_BYTES = 12;

/** An index that no buffer has. */
export const VFIO_IDX_INVALID = 0xffff_ffff;

/** Writes a device-state packet to `view`, of which it takes the first 276 bytes. */
export function encodeDevicePacket(
  view: DataView,
  idBytes: Uint8Array,
  instanceId: number,
  payloadBytes: number,
): void {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, DEVICE_PACKET_BYTES);
  view.setUint32(MAGIC_AT, MULTIFD_MAGIC);
  view.setUint32(VERSION_AT, MULTIFD_VERSION);
  view.setUint32(FLAGS_AT, PacketFlag.DEVICE_STATE);
  bytes.set(idBytes, IDSTR_AT);
  bytes.fill(0, IDSTR_AT + idBytes.length, INSTANCE_ID_AT);
  view.setUint32(INSTANCE_ID_AT, instanceId);
  view.setUint32(NEXT_PACKET_SIZE_AT, payloadBytes);
}

/** Writes VFIO's header to the first 12 bytes of `view`. */
export function encodeVfioHeader(view: DataView, idx: number, config: boolean): void {
  view.setUint32(VFIO_VERSION_AT, VFIO_VERSION);
  view.setUint32(VFIO_IDX_AT, idx);
  view.setUint32(VFIO_FLAGS_AT, config ? VFIO_CONFIG_STATE : 0);
}

/** What a device-state packet is matched with. */
interface PacketDevice {
  /** The id string without NUL. */
  readonly idBytes: Uint8Array;
  readonly instanceId: number;
}

/** Reads device-state packets. The fields are valid only after `decode()` returned. */
export class DevicePacketDecoder {
  /** Place of the device in the list given to `decode()`. */
  device = 0;
  /** Bytes of payload behind the packet. */
  payloadBytes = 0;
  readonly #view: DataView;
  readonly #payloadBytesMax: number;

  /**
   * @param view At least 276 bytes, into which packets are received.
   * @param payloadBytesMax Longest payload that is accepted.
   */
  constructor(view: DataView, payloadBytesMax: number) {
    this.#view = view;
    this.#payloadBytesMax = payloadBytesMax;
  }

  /**
   * Decodes the packet in the buffer.
   *
   * @throws {PacketError} with the field at fault in its code.
   */
  decode(devices: readonly PacketDevice[]): void {
    const view = this.#view;
    const flags = decodeFlags(view);
    if (flags !== PacketFlag.DEVICE_STATE) {
      throw packetError(
        "FLAGS",
        `flags of a device-state packet are 0x${flags.toString(16)}, must be 0x40`,
      );
    }
    if (view.getUint8(INSTANCE_ID_AT - 1) !== 0) {
      throw packetError("IDSTR", "the device's id string has no terminating NUL");
    }
    const payloadBytes = view.getUint32(NEXT_PACKET_SIZE_AT);
    if (payloadBytes === 0 || payloadBytes > this.#payloadBytesMax) {
      throw packetError(
        "NEXT_PACKET_SIZE",
        `${payloadBytes} bytes of device state, must be 1 to ${this.#payloadBytesMax}`,
      );
    }
    this.device = this.#find(devices);
    this.payloadBytes = payloadBytes;
  }

  #find(devices: readonly PacketDevice[]): number {
    // Most packets belong to the same device as the one before.
    const last = devices[this.device];
    if (last !== undefined && this.#isOf(last)) return this.device;
    for (let index = 0; index < devices.length; index++) {
      if (this.#isOf(devices[index])) return index;
    }
    const view = this.#view;
    const field = new Uint8Array(view.buffer, view.byteOffset + IDSTR_AT, IDSTR_FIELD_BYTES);
    const name = new TextDecoder().decode(field.slice(0, field.indexOf(0)));
    throw packetError(
      "DEVICE",
      `there is no device ${JSON.stringify(name)} with instance ${view.getUint32(INSTANCE_ID_AT)}`,
    );
  }

  #isOf({ idBytes, instanceId }: PacketDevice): boolean {
    const view = this.#view;
    if (view.getUint32(INSTANCE_ID_AT) !== instanceId) return false;
    for (let at = 0; at < idBytes.length; at++) {
      if (view.getUint8(IDSTR_AT + at) !== idBytes[at]) return false;
    }
    return view.getUint8(IDSTR_AT + idBytes.length) === 0;
  }
}

/** Reads VFIO headers. The fields are valid only after `decode()` returned. */
export class VfioHeaderDecoder {
  /** Place of the buffer in the device's state. */
  idx = 0;
  /** Whether the buffer is the device's config, and the last one. */
  config = false;
  readonly #view: DataView;

  /** @param view At least 12 bytes, into which headers are received. */
  constructor(view: DataView) {
    this.#view = view;
  }

  /**
   * Decodes the header of a payload of `payloadBytes` bytes.
   *
   * @throws {PacketError} with the field at fault in its code.
   */
  decode(payloadBytes: number): void {
    const view = this.#view;
    if (payloadBytes < VFIO_HEADER_BYTES) {
      throw packetError(
        "NEXT_PACKET_SIZE",
        `${payloadBytes} bytes of VFIO state, must be at least ${VFIO_HEADER_BYTES}`,
      );
    }
    const version = view.getUint32(VFIO_VERSION_AT);
    if (version !== VFIO_VERSION) {
      throw packetError("VFIO_VERSION", `VFIO version is ${version}, must be ${VFIO_VERSION}`);
    }
    const idx = view.getUint32(VFIO_IDX_AT);
    if (idx === VFIO_IDX_INVALID)
      throw packetError("VFIO_IDX", "VFIO idx is 0xffffffff, never used");
    const flags = view.getUint32(VFIO_FLAGS_AT);
    if ((flags & ~VFIO_CONFIG_STATE) !== 0) {
      throw packetError("VFIO_FLAGS", `VFIO flags are 0x${flags.toString(16)}, must be 0 or 1`);
    }
    this.idx = idx;
    this.config = flags === VFIO_CONFIG_STATE;
  }
}
