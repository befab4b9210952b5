/**
 * The device state of a checkpoint over the channels instead of the main connection, an option
 * between two peers of this library: one device whose buffers are numbered on from checkpoint to
 * checkpoint. They are sent before the checkpoint's sync point, hence are here when it is passed.
 *
 * @module
 */
import type { DeviceDefinition } from "../device/device.ts";
import { createDeviceQueue, DeviceQueue, type DeviceQueueHandle } from "../engine/device_queue.ts";
import { StreamError } from "../errors.ts";
import { CHECKPOINT_STATE_BYTES_MAX, DEVICE_BUFFER_BYTES } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";

/** The device. */
export const STATE_DEVICE = {
  idstr: "multifd/state",
  instanceId: 0,
  format: "vfio",
} as const satisfies DeviceDefinition;

/** Where channels put the buffers; unused parts cost no memory. */
export function createStateQueue(): DeviceQueueHandle {
  return createDeviceQueue({
    ...STATE_DEVICE,
    queuedBytesMax: CHECKPOINT_STATE_BYTES_MAX,
    queuedBuffersMax: CHECKPOINT_STATE_BYTES_MAX / DEVICE_BUFFER_BYTES,
  });
}

/** Takes the state of one checkpoint after the other out of the queue. */
export class StateChannel {
  readonly #queue: DeviceQueue;
  readonly #limitMs: number;

  /** @param limitMs How long to wait for one buffer. */
  constructor(handle: DeviceQueueHandle, control: SessionControl, limitMs: number) {
    this.#queue = new DeviceQueue(handle, control);
    this.#limitMs = limitMs;
  }

  /**
   * Takes a state of `bytes` bytes, at most `CHECKPOINT_STATE_BYTES_MAX`.
   *
   * @throws {StreamError} when the buffers are not of that length together.
   */
  take(bytes: number): Uint8Array {
    const state = new Uint8Array(bytes);
    for (let done = 0; done < bytes;) {
      const buffer = this.#queue.take(this.#limitMs);
      const length = buffer?.bytes.byteLength ?? 0;
      if (buffer === undefined || length === 0 || done + length > bytes) {
        throw new StreamError(
          "ERR_MULTIFD_STREAM_COLO",
          `Cannot take checkpoint: a piece of ${length} bytes of device state, ${bytes - done} are left`,
        );
      }
      state.set(buffer.bytes, done);
      this.#queue.release();
      done += length;
    }
    return state;
  }
}
