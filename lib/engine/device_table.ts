/**
 * The devices of a sender as every thread sees them: names, the index of the next buffer, and how
 * much has been queued. In shared memory, because several threads may produce the state of one
 * device, and because a device may be registered when producers' threads already run.
 *
 * @module
 */
import { LimitError } from "../errors.ts";
import { BLOCK_ID_BYTES_MAX, DEVICES_MAX } from "../limits.ts";
import { AtomicCounter } from "../sync/atomic_counter.ts";

/*
 * Table: u32 number of devices, written last; then from byte 128 on a record of 384 bytes each:
 *     0 u32 instance id    4 u32 place in DEVICE_FORMATS   8 u32 id bytes
 *    16 u64 next idx      24 u64 buffers queued     32 u64 bytes queued
 *    40 u32 1 = the config is queued
 *   128 id string
 */
const RECORDS_AT = 128;
const RECORD_BYTES = 384;
const NEXT_IDX_WORD = 4;
const BUFFERS_WORD = 6;
const BYTES_WORD = 8;
const CONFIGURED_WORD = 10;
const ID_AT = 128;

/**
 * What is in front of each buffer of a device, and hence how the receiver orders them. `vfio`: every payload begins with VFIO's header, buffers are loaded in order and end with the
 * device's config, as QEMU does. `raw`: payloads carry nothing else and are loaded as they arrive.
 */
export type DeviceFormat = "vfio" | "raw";

/** All formats; a device's record has the place in this list. */
export const DEVICE_FORMATS: readonly DeviceFormat[] = ["vfio", "raw"];

/** Identity of a device, equal on both sides. */
export interface DeviceIdentity {
  /** Section id string, 1 to 255 bytes. */
  readonly idstr: string;
  /** Tells devices with the same id string apart. */
  readonly instanceId: number;
  readonly format: DeviceFormat;
}

/** One device of a sender. */
export interface TableDevice extends DeviceIdentity {
  /** The id string as on the wire, without NUL. */
  readonly idBytes: Uint8Array;
  /** Index of the next buffer, data or config. */
  readonly nextIdx: AtomicCounter;
  /** Buffers queued so far. */
  readonly buffers: AtomicCounter;
  /** Bytes queued so far, headers not counted. */
  readonly bytes: AtomicCounter;
  /** Above 0 once the config is queued; nothing may follow it. */
  readonly configs: AtomicCounter;
}

/** See the module comment. Each thread makes its own object over the same buffer. */
export class DeviceTable {
  readonly buffer: SharedArrayBuffer;
  readonly #count: Int32Array;
  readonly #devices: TableDevice[] = [];

  constructor(buffer = new SharedArrayBuffer(RECORDS_AT + DEVICES_MAX * RECORD_BYTES)) {
    this.buffer = buffer;
    this.#count = new Int32Array(buffer, 0, 1);
  }

  /** The devices registered so far. */
  get devices(): readonly TableDevice[] {
    for (let index = this.#devices.length; index < Atomics.load(this.#count, 0); index++) {
      this.#devices.push(this.#read(index));
    }
    return this.#devices;
  }

  /**
   * Registers a device. Only one thread may do so.
   *
   * @throws {RangeError} when there is one of that name and instance already.
   * @throws {LimitError} when the table is full.
   */
  add(device: DeviceIdentity): TableDevice {
    const { idstr, instanceId, format } = device;
    this.checkNew(device);
    const index = this.devices.length;
    const at = RECORDS_AT + index * RECORD_BYTES;
    const words = new Uint32Array(this.buffer, at, 3);
    const idBytes = encodeIdstr(idstr);
    words[0] = instanceId;
    words[1] = DEVICE_FORMATS.indexOf(format);
    words[2] = idBytes.byteLength;
    new Uint8Array(this.buffer, at + ID_AT, idBytes.byteLength).set(idBytes);
    Atomics.store(this.#count, 0, index + 1); // pairs with the load in `devices`
    return this.devices[index];
  }

  /** Checks that a device may be added; throws as {@linkcode add}. */
  checkNew({ idstr, instanceId }: DeviceIdentity): void {
    if (this.find(idstr, instanceId) !== undefined) {
      throw new RangeError(
        `Cannot register device ${idstr} instance ${instanceId}: it is registered already`,
      );
    }
    if (this.devices.length >= DEVICES_MAX) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_DEVICES",
        `Cannot register device ${idstr}: there are ${DEVICES_MAX} devices, the most`,
      );
    }
  }

  /** The device of that name and instance, if there is one. */
  find(idstr: string, instanceId: number): TableDevice | undefined {
    return this.devices.find(
      (device) => device.idstr === idstr && device.instanceId === instanceId,
    );
  }

  #read(index: number): TableDevice {
    const at = RECORDS_AT + index * RECORD_BYTES;
    const words = new Uint32Array(this.buffer, at, 3);
    const idBytes = new Uint8Array(this.buffer, at + ID_AT, words[2]).slice();
    const counters = new Int32Array(this.buffer, at, ID_AT / 4);
    return {
      idstr: new TextDecoder("utf-8", { ignoreBOM: true }).decode(idBytes),
      instanceId: words[0],
      format: DEVICE_FORMATS[words[1]],
      idBytes,
      nextIdx: new AtomicCounter(counters, NEXT_IDX_WORD),
      buffers: new AtomicCounter(counters, BUFFERS_WORD),
      bytes: new AtomicCounter(counters, BYTES_WORD),
      configs: new AtomicCounter(counters, CONFIGURED_WORD),
    };
  }
}

/**
 * A device's id string as on the wire.
 *
 * @throws {RangeError} for one that the packet cannot carry.
 */
export function encodeIdstr(idstr: string): Uint8Array {
  const bytes = new TextEncoder().encode(idstr);
  if (bytes.byteLength === 0 || bytes.byteLength > BLOCK_ID_BYTES_MAX || bytes.includes(0)) {
    throw new RangeError(
      `Cannot use device id ${JSON.stringify(idstr)}: must have 1 to ${BLOCK_ID_BYTES_MAX} bytes and no NUL`,
    );
  }
  return bytes;
}
