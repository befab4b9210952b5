/**
 * What the code that saves a device works with, on its own thread.
 *
 * @module
 */
import type { DeviceClient, PreparedBuffer } from "../engine/device_client.ts";
import type { DeviceIdentity } from "../engine/device_table.ts";
import { DeviceError } from "../errors.ts";
import type { TaskContext } from "../thread/task_pool.ts";

/** First argument of a device's `save`. Calls block while no channel is idle. */
export interface SaveDevice extends DeviceIdentity, TaskContext {
  /** Gives a buffer of 1 MiB to fill in place; must be followed by one `finish` or `finishWith`. */
  prepare(): PreparedBuffer;
  /** Queues the first `length` bytes of the prepared buffer; cancels when there are none. */
  finish(length: number): boolean;
  /** As `finish`, with memory of the caller's own that must stay as it is; no copy is made. */
  finishWith(address: number, length: number): boolean;
  /** Queues a copy of `bytes`. */
  queue(bytes: Uint8Array): void;
  /** Queues the device's config (`vfio` only); nothing can be queued after it. */
  config(bytes: Uint8Array): void;
}

/** See {@linkcode SaveDevice}. */
export class SaveContext implements SaveDevice {
  readonly idstr: string;
  readonly instanceId: number;
  readonly format: DeviceIdentity["format"];
  readonly signal: AbortSignal;
  readonly #task: TaskContext;
  readonly #client: DeviceClient;
  #configured = false;

  constructor(device: DeviceIdentity, client: DeviceClient, task: TaskContext) {
    this.idstr = device.idstr;
    this.instanceId = device.instanceId;
    this.format = device.format;
    this.signal = task.signal;
    this.#task = task;
    this.#client = client;
  }

  get aborted(): boolean {
    return this.#task.aborted;
  }

  /** Whether the config has been queued. */
  get configured(): boolean {
    return this.#configured;
  }

  throwIfAborted(): void {
    this.#task.throwIfAborted();
  }

  prepare(): PreparedBuffer {
    this.#check();
    return this.#client.prepare(this.idstr, this.instanceId);
  }

  finish(length: number): boolean {
    return this.#client.finish(length);
  }

  finishWith(address: number, length: number): boolean {
    return this.#client.finishWith(address, length);
  }

  queue(bytes: Uint8Array): void {
    this.#check();
    this.#client.queueDeviceState(this.idstr, this.instanceId, bytes);
  }

  config(bytes: Uint8Array): void {
    this.#check();
    this.#client.queueDeviceState(this.idstr, this.instanceId, bytes, true);
    this.#configured = true;
  }

  #check(): void {
    this.throwIfAborted();
    if (!this.#configured) return;
    throw new DeviceError(
      "ERR_MULTIFD_DEVICE_CONFIG",
      `Cannot queue state of device ${this.idstr}: its config has been queued, and it is the last`,
    );
  }
}
