/**
 * The way to a receiver for threads that may block.
 *
 * @module
 */
import type { DeviceProgress } from "../device/device.ts";
import { DeviceQueue } from "../engine/device_queue.ts";
import type { Statistics } from "../engine/statistics.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import { formatEndpoint } from "../net/endpoint.ts";
import { checkOptionNames } from "../option_names.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { loadedProgress } from "./device_progress.ts";
import { LISTEN_OPTIONS, type ListenOptions } from "./options.ts";
import { receiverConfig } from "./session_config.ts";
import { ReceiverSession } from "./receiver_session.ts";

/**
 * A listening receiver, made by {@linkcode listenBlocking}: as `Receiver`, but every call returns when
 * it is done; blocks are known when `complete()` returns. It belongs to the thread that made it.
 */
export class BlockingReceiver implements Disposable {
  /** Where senders connect, with the port that was chosen for port 0. */
  readonly endpoint: string;
  readonly #session: ReceiverSession;
  readonly #devices: readonly DeviceQueue[];
  #state: GuestState | undefined;

  private constructor(options: ListenOptions) {
    const config = receiverConfig(options);
    const control = new SessionControl();
    this.#devices = config.devices.map(({ queue }) => new DeviceQueue(queue, control));
    const hooks = {
      onWarning: options.onWarning,
      finalize: (blocks: readonly RamBlock[], state: GuestState | undefined): void => {
        this.#state = state;
        void options.finalize?.(blocks, state);
      },
    };
    this.#session = new ReceiverSession(config, hooks, control);
    try {
      this.#session.keep(holdBlocks(options.blocks ?? []));
      this.endpoint = formatEndpoint(this.#session.listen());
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** See {@linkcode listenBlocking}. */
  static listen(options: ListenOptions): BlockingReceiver {
    checkOptionNames(LISTEN_OPTIONS, options);
    return new BlockingReceiver(options);
  }

  /** Receives one migration; returns when all of it is in place and the sender has been told. */
  complete(): Statistics {
    return this.#session.complete();
  }

  /** Blocks received into; empty until the sender has announced them. */
  get blocks(): readonly RamBlock[] {
    return this.#session.blocks;
  }

  /** What is not RAM, once all of it has arrived; only with option `capture`. */
  get state(): GuestState | undefined {
    return this.#state;
  }

  /** What has been loaded of each device so far. */
  deviceProgress(): DeviceProgress[] {
    return loadedProgress(this.#devices);
  }

  /** Counters as of now; readable after the end and after a failure. */
  statistics(): Statistics {
    return this.#session.statistics();
  }

  /** Stops everything, joins the channels and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
  }
}

/**
 * Makes a listening receiver for a thread that may block, such as a worker.
 *
 * @param options As for `listen()`; the host must be numeric, `finalize` must not return a promise,
 * and `signal` is not looked at since a blocked thread sees no events.
 * @throws {MultifdError} when listening fails; everything is released then.
 */
export function listenBlocking(options: ListenOptions): BlockingReceiver {
  return BlockingReceiver.listen(options);
}
