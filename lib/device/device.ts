/**
 * What a user says about a device whose state travels over the channels: its name, how its state is
 * cut into buffers, and which code saves and loads it on a thread of its own.
 *
 * @module
 */
import type { CompressionMethod } from "../codec/methods.ts";
import {
  createDeviceQueue,
  type DeviceLimits,
  type DeviceQueueHandle,
} from "../engine/device_queue.ts";
import { DEVICE_FORMATS, encodeIdstr, type DeviceIdentity } from "../engine/device_table.ts";
import type { DeviceFormat } from "../engine/device_table.ts";
import {
  DEVICE_BUFFER_BYTES,
  DEVICE_QUEUED_BUFFERS_DEFAULT,
  DEVICE_QUEUED_BUFFERS_MAX,
  DEVICE_QUEUED_BYTES_DEFAULT,
  DEVICE_QUEUED_BYTES_MAX,
  DEVICES_MAX,
} from "../limits.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { checkWorkerFunction, type WorkerFunction } from "../thread/worker_function.ts";

/** State that is read from or written to a file descriptor at its position. */
export interface DescriptorState {
  readonly builtin: "descriptor";
  /** A file, pipe, socket or character device, open as long as the session lasts. */
  readonly fd: number;
  /** Bytes of one buffer. */
  readonly chunkBytes: number;
}

/** State that lies in shared memory. */
export interface MemoryState {
  readonly builtin: "memory";
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  /** Bytes of one buffer. */
  readonly chunkBytes: number;
}

/** Code that saves or loads the state of a device: the user's own or one that is built in. */
export type DeviceCode = WorkerFunction | DescriptorState | MemoryState;

/** What a device is, whatever code saves and loads it. */
export interface DeviceSettings {
  /** Section id string, 1 to 255 bytes, equal on both sides. */
  readonly idstr: string;
  /** Tells devices with the same id string apart; equal on both sides. Default 0. */
  readonly instanceId?: number | undefined;
  /** Equal on both sides. Default `vfio`. */
  readonly format?: DeviceFormat | undefined;
  /** Sender: what the built-in devices send as config, the last buffer. Default empty. */
  readonly config?: Uint8Array | undefined;
  /** Receiver: load the config only when all RAM is in place. Default false. */
  readonly configAfterRam?: boolean | undefined;
  /** Receiver: bytes that may wait for the load thread. Default 1 GiB, at most 2 GB. */
  readonly queuedBytesMax?: number | undefined;
  /** Receiver: buffers that may wait for the load thread. Default 65,536. */
  readonly queuedBuffersMax?: number | undefined;
  /**
   * Receiver: at a limit, let the channels wait until the load thread has made room, RAM and other
   * devices on them too, instead of failing. For loads that may be slower than the network; ends with
   * the stall limit when the load stands still. Default false, as specified for QEMU's peers.
   */
  readonly waitWhenFull?: boolean | undefined;
}

/** A device, for either side or for both. */
export interface DeviceDefinition extends DeviceSettings {
  /**
   * Sender: runs at the completion phase, called with a {@linkcode SaveDevice}. Absent: the state is
   * queued by the caller's own threads.
   */
  readonly save?: DeviceCode | undefined;
  /** Receiver: runs from SWITCHOVER_START on, called with a {@linkcode LoadDevice}. Required there. */
  readonly load?: DeviceCode | undefined;
}

/** Names of {@linkcode DeviceSettings}. */
export const DEVICE_SETTINGS = {
  idstr: true,
  instanceId: true,
  format: true,
  config: true,
  configAfterRam: true,
  queuedBytesMax: true,
  queuedBuffersMax: true,
  waitWhenFull: true,
} satisfies OptionNames<DeviceSettings>;

const DEVICE_OPTIONS = {
  ...DEVICE_SETTINGS,
  save: true,
  load: true,
} satisfies OptionNames<DeviceDefinition>;

/** How far a device is: what has been queued (sender) or loaded (receiver). */
export interface DeviceProgress {
  readonly idstr: string;
  readonly instanceId: number;
  /** Buffers, the config included. */
  readonly buffers: number;
  /** Bytes of state, headers not counted. */
  readonly bytes: number;
}

/** A checked device of a sender; cloneable. */
export interface SaveConfig extends DeviceIdentity {
  readonly save: DeviceCode | undefined;
  readonly config: Uint8Array;
}

/** A checked device of a receiver with its queue; cloneable. */
export interface LoadConfig {
  readonly queue: DeviceQueueHandle;
  readonly load: DeviceCode;
  readonly configAfterRam: boolean;
}

/** What decides whether a session can carry device state. */
export interface DeviceTransport {
  readonly method: CompressionMethod;
  /** Whether this side asked for device state beside compressed RAM; QEMU does neither. */
  readonly compressed: boolean;
  /** Whether the stream says when the final phase begins; load threads start there. */
  readonly switchoverStart: boolean;
}

/**
 * Checks a sender's device.
 *
 * @throws {RangeError | TypeError} for a definition that cannot work.
 */
export function saveConfig(device: DeviceDefinition, transport: DeviceTransport): SaveConfig {
  checkTransport(transport);
  const { save, config = new Uint8Array(0) } = device;
  if (save !== undefined) checkCode("save", save);
  if (config.byteLength > DEVICE_BUFFER_BYTES) {
    throw new RangeError(
      `Cannot use a config of ${config.byteLength} bytes: must be at most ${DEVICE_BUFFER_BYTES}`,
    );
  }
  return { ...identity(device), save, config };
}

/**
 * Checks a receiver's devices and makes their queues.
 *
 * @throws {RangeError | TypeError} for definitions that cannot work.
 */
export function loadConfigs(
  devices: readonly DeviceDefinition[],
  transport: DeviceTransport,
): LoadConfig[] {
  if (devices.length === 0) return [];
  checkTransport(transport);
  const names = new Set(devices.map(({ idstr, instanceId = 0 }) => `${instanceId} ${idstr}`));
  if (names.size < devices.length || devices.length > DEVICES_MAX) {
    throw new RangeError(
      `Cannot use ${devices.length} devices: ids and instances must differ, and there may be ${DEVICES_MAX}`,
    );
  }
  return devices.map((device) => {
    if (device.load === undefined) {
      throw new TypeError(`Cannot receive device ${device.idstr}: it has no load`);
    }
    checkCode("load", device.load);
    return {
      queue: createDeviceQueue(
        { ...identity(device), ...limits(device) },
        // Numbers of a raw device are those of arrival, which say nothing about a place.
        isMemory(device.load) && device.format !== "raw" ? device.load : undefined,
      ),
      load: device.load,
      configAfterRam: device.configAfterRam ?? false,
    };
  });
}

/**
 * For transports that have no packets: their options have no devices, which a caller's compiler says
 * and a caller without one would not notice.
 *
 * @throws {TypeError} when there are devices all the same.
 */
export function refuseDevices(options: object): void {
  if (!("devices" in options) || options.devices === undefined) return;
  throw new TypeError(
    "Cannot write device state to a mapped-ram file: it has a place for RAM only, devices need a connection",
  );
}

function checkTransport({ method, compressed, switchoverStart }: DeviceTransport): void {
  if (!switchoverStart) {
    throw new TypeError(
      "Cannot transfer device state: the guest's stream has no SWITCHOVER_START, its machine type must be 10.0 or later",
    );
  }
  if (method === "none" || compressed) return;
  throw new TypeError(
    `Cannot transfer device state: compression is ${method}, must be none, or deviceStateCompressed set on both sides`,
  );
}

function identity(device: DeviceDefinition): DeviceIdentity {
  checkOptionNames(DEVICE_OPTIONS, device, "devices");
  const { idstr, instanceId = 0, format = "vfio" } = device;
  encodeIdstr(idstr);
  if (!Number.isInteger(instanceId) || instanceId < 0 || instanceId > 0xffff_ffff) {
    throw new RangeError(`Cannot use instance ${instanceId} of ${idstr}: must be 0 to 2^32 - 1`);
  }
  if (!DEVICE_FORMATS.includes(format)) {
    throw new RangeError(
      `Cannot use format ${format as string} for ${idstr}: must be one of ${DEVICE_FORMATS.join(", ")}`,
    );
  }
  return { idstr, instanceId, format };
}

function limits(device: DeviceDefinition): DeviceLimits {
  const {
    queuedBytesMax = DEVICE_QUEUED_BYTES_DEFAULT,
    queuedBuffersMax = DEVICE_QUEUED_BUFFERS_DEFAULT,
    waitWhenFull = false,
  } = device;
  for (const [name, value, max] of [
    ["queuedBytesMax", queuedBytesMax, DEVICE_QUEUED_BYTES_MAX],
    ["queuedBuffersMax", queuedBuffersMax, DEVICE_QUEUED_BUFFERS_MAX],
  ] as const) {
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new RangeError(
        `Cannot use ${name} of ${value} for ${device.idstr}: must be 1 to ${max}`,
      );
    }
  }
  return { queuedBytesMax, queuedBuffersMax, waitWhenFull };
}

function isMemory(code: DeviceCode): code is MemoryState {
  return "builtin" in code && code.builtin === "memory";
}

function checkCode(what: string, code: DeviceCode): void {
  if (!("builtin" in code)) return checkWorkerFunction(what, code);
  const { chunkBytes } = code;
  if (!Number.isInteger(chunkBytes) || chunkBytes < 1 || chunkBytes > DEVICE_BUFFER_BYTES) {
    throw new RangeError(
      `Cannot use chunks of ${chunkBytes} bytes: must be 1 to ${DEVICE_BUFFER_BYTES}`,
    );
  }
}
