/**
 * The devices of a sender: their table, the buffers of their state, and the save threads of the
 * completion phase.
 *
 * @module
 */
import type { SaveConfig } from "../device/device.ts";
import { SAVE_ROLE, type SaveTask } from "../device/device_messages.ts";
import { DeviceClient, type DeviceClientParts } from "../engine/device_client.ts";
import { DeviceSendState } from "../engine/device_send_state.ts";
import { DeviceTable, type TableDevice } from "../engine/device_table.ts";
import type { SendState } from "../engine/send_state.ts";
import { DEVICES_MAX } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { TaskPool } from "../thread/task_pool.ts";
import type { Timeouts } from "./options.ts";
import { joinTasks } from "./join_tasks.ts";

/** See the module comment. Used by the sender's thread. */
export class SenderDevices implements Disposable {
  readonly #table = new DeviceTable();
  readonly #saves: SaveConfig[] = [];
  readonly #pool: TaskPool;
  readonly #state: SendState;
  readonly #control: SessionControl;
  readonly #timeouts: Timeouts;
  #buffers: DeviceSendState | undefined;
  #client: DeviceClient | undefined;

  constructor(state: SendState, control: SessionControl, timeouts: Timeouts) {
    this.#state = state;
    this.#control = control;
    this.#timeouts = timeouts;
    this.#pool = new TaskPool({ threadsMax: DEVICES_MAX }, control, SAVE_ROLE);
  }

  /**
   * Adds a device; the first one makes the buffers of all slots.
   *
   * @throws {RangeError | LimitError} as `DeviceTable.add()`.
   */
  register(device: SaveConfig): void {
    this.#table.add(device);
    this.#buffers ??= DeviceSendState.create(this.#state, this.#control);
    if (device.save === undefined) return;
    this.#saves.push(device);
    // A thread that starts in the completion phase would cost downtime.
    this.#pool.prestart(this.#saves.length);
  }

  /** What makes a client in any thread; undefined before the first device is registered. */
  get handle(): DeviceClientParts | undefined {
    if (this.#buffers === undefined) return undefined;
    return {
      state: this.#state.handle,
      device: this.#buffers.handle,
      devices: this.#table.buffer,
      control: this.#control.buffer,
      limitMs: this.#timeouts.stallMs,
    };
  }

  /** The client of the sender's own thread. */
  client(): DeviceClient {
    const { handle } = this;
    if (handle === undefined) {
      throw new RangeError("Cannot queue device state: no device is registered");
    }
    return (this.#client ??= new DeviceClient(handle));
  }

  /** Starts a save thread for every device that has code to save it. */
  startSaves(): void {
    const client = this.handle;
    if (client === undefined) return;
    for (const device of this.#saves) {
      this.#pool.submit({ device, client } satisfies SaveTask);
    }
  }

  /**
   * Waits until all save threads have ended.
   *
   * @throws The first error of any of them, or {TimeoutError} when nothing moves any more.
   */
  joinSaves(): void {
    const progress = (): number =>
      this.#table.devices.reduce((sum, { buffers }) => sum + buffers.value, 0);
    const standstill = (task: number): string => {
      const { idstr, instanceId } = this.#saves[task]; // each has one task, in order
      return `device ${idstr} instance ${instanceId} queued no buffer`;
    };
    joinTasks(this.#pool, this.#control, this.#timeouts.idleMs, progress, standstill);
    this.#control.throwIfFailed();
    // A device whose state was queued by hand; the config tells that nothing is missing.
    for (const { idstr, instanceId, format, configs } of this.#table.devices) {
      if (format === "raw" || configs.value > 0) continue;
      this.client().queueDeviceState(idstr, instanceId, new Uint8Array(0), true);
    }
  }

  /** The devices, for the summary that says how much of which has been queued. */
  get registered(): readonly TableDevice[] {
    return this.#table.devices;
  }

  /** Aborts and joins the save threads. */
  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }
}
