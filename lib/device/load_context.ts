/**
 * What the code that loads a device works with, on its own thread.
 *
 * @module
 */
import type { DeviceQueue, QueuedBuffer } from "../engine/device_queue.ts";
import type { DeviceIdentity } from "../engine/device_table.ts";
import { DeviceError } from "../errors.ts";
import type { TaskContext } from "../thread/task_pool.ts";

/** A piece of a device's state, valid until the next call. */
export interface LoadedBuffer {
  /** The data, in shared memory. */
  readonly bytes: Uint8Array;
  /** Address of the first byte. */
  readonly address: number;
}

/** First argument of a device's `load`. Calls block until the state is here. */
export interface LoadDevice extends DeviceIdentity, TaskContext {
  /** Releases the last buffer and gives the next one, in order; undefined when there are no more. */
  next(): LoadedBuffer | undefined;
  /**
   * A copy of the device's config, after the last buffer; waits for RAM if the device asked for
   * that. Empty for `raw`.
   */
  config(): Uint8Array;
}

/** See {@linkcode LoadDevice}. */
export class LoadContext implements LoadDevice {
  readonly idstr: string;
  readonly instanceId: number;
  readonly format: DeviceIdentity["format"];
  readonly signal: AbortSignal;
  readonly #task: TaskContext;
  readonly #queue: DeviceQueue;
  readonly #configAfterRam: boolean;
  #held = false;
  #ended = false;
  #config: QueuedBuffer | undefined;

  constructor(queue: DeviceQueue, task: TaskContext, configAfterRam: boolean) {
    const { idstr, instanceId, format } = queue.handle;
    this.idstr = idstr;
    this.instanceId = instanceId;
    this.format = format;
    this.signal = task.signal;
    this.#task = task;
    this.#queue = queue;
    this.#configAfterRam = configAfterRam;
  }

  get aborted(): boolean {
    return this.#task.aborted;
  }

  throwIfAborted(): void {
    this.#task.throwIfAborted();
  }

  next(): LoadedBuffer | undefined {
    this.throwIfAborted();
    if (this.#held) this.#queue.release();
    this.#held = false;
    if (this.#ended) return undefined;
    // The receiver's thread sees all devices, and ends the session when none of them moves any more.
    const buffer = this.#queue.take(Infinity);
    if (buffer === undefined || buffer.config) {
      this.#ended = true;
      this.#config = buffer;
      return undefined;
    }
    this.#held = true;
    return buffer;
  }

  config(): Uint8Array {
    if (!this.#ended) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_CONFIG",
        `Cannot load the config of device ${this.idstr}: buffers in front of it are not loaded`,
      );
    }
    if (this.#config === undefined) return new Uint8Array(0);
    if (this.#configAfterRam) this.#queue.waitRamLoaded(Infinity);
    return this.#config.bytes.slice();
  }

  /**
   * Checks that everything was loaded, and lets go of the last buffer.
   *
   * @throws {DeviceError} when `load` ended too early.
   */
  end(): void {
    if (this.#held) this.#queue.release();
    this.#held = false;
    if (!this.#ended && this.next() !== undefined) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_LOAD",
        `Cannot load device ${this.idstr}: its load ended before the last buffer`,
      );
    }
    if (this.#config !== undefined) this.#queue.release();
    this.#config = undefined;
  }
}
