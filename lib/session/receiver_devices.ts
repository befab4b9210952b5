/**
 * The devices of a receiver: a queue each, which the channels fill, and a load thread each, from
 * SWITCHOVER_START on.
 *
 * @module
 */
import type { LoadConfig } from "../device/device.ts";
import { LOAD_ROLE, type LoadTask } from "../device/device_messages.ts";
import { DeviceQueue } from "../engine/device_queue.ts";
import { DeviceError } from "../errors.ts";
import { DEVICES_MAX } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { TaskPool } from "../thread/task_pool.ts";
import { deviceKey, type DeviceSummary } from "./device_summary.ts";
import { joinTasks } from "./join_tasks.ts";

/** See the module comment. Used by the receiver's thread. */
export class ReceiverDevices implements Disposable {
  readonly #configs: readonly LoadConfig[];
  readonly #queues: readonly DeviceQueue[];
  readonly #control: SessionControl;
  readonly #limitMs: number;
  readonly #pool: TaskPool;
  #started = false;

  /** @param limitMs Longest time in which nothing of any device comes or is loaded, in the end. */
  constructor(configs: readonly LoadConfig[], control: SessionControl, limitMs: number) {
    this.#configs = configs;
    this.#queues = configs.map(({ queue }) => new DeviceQueue(queue, control));
    this.#control = control;
    this.#limitMs = limitMs;
    this.#pool = new TaskPool({ threadsMax: DEVICES_MAX }, control, LOAD_ROLE);
    this.#pool.prestart(configs.length);
  }

  /** Starts the load threads; what came before waits in the queues. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    for (const device of this.#configs) {
      const { buffer } = this.#control;
      this.#pool.submit({ device, control: buffer } satisfies LoadTask);
    }
  }

  /** Takes the sender's word for how many buffers each device has. */
  expect(summary: DeviceSummary): void {
    for (const queue of this.#queues) {
      queue.expect(summary.get(deviceKey(queue.handle)) ?? 0);
    }
  }

  /**
   * All RAM is in place and the stream has ended: waits until every device is loaded.
   *
   * @param check Called every tick; throws when there is no reason to wait any more.
   * @throws The first error of a load thread, {DeviceError} when loading never began.
   */
  finish(check: () => void): void {
    if (this.#queues.length === 0) return;
    if (!this.#started) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_SWITCHOVER",
        `Cannot load ${this.#queues[0].name}: the stream has no SWITCHOVER_START, it must come before the devices`,
      );
    }
    for (const queue of this.#queues) queue.ramLoaded();
    const progress = (): number =>
      this.#queues.reduce((sum, { arrived, loaded }) => sum + arrived + loaded.buffers, 0);
    // Each device has one task, in order.
    const standstill = (task: number): string => this.#queues[task].standstill;
    joinTasks(this.#pool, this.#control, this.#limitMs, progress, standstill, check);
  }

  /** Aborts and joins the load threads. */
  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }
}
