/**
 * A ready-made device: its state lies in a SharedArrayBuffer and is loaded into one. Channels send
 * straight from that memory and receive straight into it; nothing is copied.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { DeviceError } from "../errors.ts";
import { DEVICE_BUFFER_BYTES } from "../limits.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import {
  DEVICE_SETTINGS,
  type DeviceDefinition,
  type MemoryState,
  type DeviceSettings,
} from "./device.ts";
import type { LoadDevice } from "./load_context.ts";
import type { SaveDevice } from "./save_context.ts";

/** What a memory device is made of. */
export interface MemoryDeviceOptions extends DeviceSettings {
  /** The state, or where it goes; both sides must have the same length. */
  readonly buffer: SharedArrayBuffer;
  /** First byte of the state. Default 0. */
  readonly byteOffset?: number | undefined;
  /** Bytes of the state. Default up to the end of the buffer. */
  readonly byteLength?: number | undefined;
  /** Bytes of one buffer, 1 to 1 MiB, the receiver's at least the sender's. Default 1 MiB. */
  readonly chunkBytes?: number | undefined;
}

const MEMORY_DEVICE_OPTIONS = {
  ...DEVICE_SETTINGS,
  buffer: true,
  byteOffset: true,
  byteLength: true,
  chunkBytes: true,
} satisfies OptionNames<MemoryDeviceOptions>;

/**
 * A device over shared memory, which must not change from the completion phase on.
 *
 * @throws {RangeError} for a range outside the buffer.
 *
 * @example
 * ```ts
 * const weights = new SharedArrayBuffer(256 * 1_048_576);
 * await sender.registerDevice(memoryDevice({ idstr: "model/weights", buffer: weights }));
 * ```
 */
export function memoryDevice(options: MemoryDeviceOptions): DeviceDefinition {
  checkOptionNames(MEMORY_DEVICE_OPTIONS, options);
  const { buffer, byteOffset = 0, chunkBytes = DEVICE_BUFFER_BYTES } = options;
  const { byteLength = buffer.byteLength - byteOffset } = options;
  if (!(byteOffset >= 0 && byteLength > 0 && byteOffset + byteLength <= buffer.byteLength)) {
    throw new RangeError(
      `Cannot use ${byteLength} bytes from ${byteOffset}: the buffer has ${buffer.byteLength} bytes`,
    );
  }
  const code: MemoryState = { builtin: "memory", buffer, byteOffset, byteLength, chunkBytes };
  const { idstr, instanceId, format, config, configAfterRam } = options;
  const { queuedBytesMax, queuedBuffersMax, waitWhenFull } = options;
  const receiver = { configAfterRam, queuedBytesMax, queuedBuffersMax, waitWhenFull };
  return { idstr, instanceId, format, config, ...receiver, save: code, load: code };
}

/** Queues the memory, piece by piece. */
export function saveMemory(device: SaveDevice, state: MemoryState): void {
  const { byteLength, chunkBytes } = state;
  const address = addressOf(state.buffer) + state.byteOffset;
  for (let at = 0; at < byteLength; at += chunkBytes) {
    device.throwIfAborted();
    device.prepare();
    device.finishWith(address + at, Math.min(chunkBytes, byteLength - at));
  }
}

/** Puts every buffer behind the one before. */
export function loadMemory(device: LoadDevice, state: MemoryState): void {
  const { buffer, byteOffset, byteLength } = state;
  const address = addressOf(buffer) + byteOffset;
  const target = new Uint8Array(buffer, byteOffset, byteLength);
  let at = 0;
  for (let next = device.next(); next !== undefined; next = device.next()) {
    const bytes = next.bytes.byteLength;
    // Usually it has been received where it belongs; else it may overlap that place.
    if (next.address !== address + at && at + bytes <= byteLength) target.set(next.bytes, at);
    at += bytes;
  }
  if (at === byteLength) return;
  throw new DeviceError(
    "ERR_MULTIFD_DEVICE_LENGTH",
    `Cannot load device ${device.idstr}: its state has ${at} bytes, must be ${byteLength}`,
  );
}
