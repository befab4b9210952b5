/**
 * The asynchronous receiver: the main connection is read on a worker, the channels on workers of
 * that worker, and the caller's event loop stays free.
 *
 * @module
 */
import type { DeviceProgress } from "../device/device.ts";
import { DeviceQueue } from "../engine/device_queue.ts";
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CHANNELS_MAX } from "../limits.ts";
import { holdBlocks, RamBlock, type SharedRamBlock } from "../memory/ram_block.ts";
import { formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import { checkOptionNames } from "../option_names.ts";
import type { Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { withAddress } from "./address.ts";
import { loadedProgress } from "./device_progress.ts";
import { LISTEN_OPTIONS, type ListenOptions } from "./options.ts";
import { receiverConfig, type ReceiverConfig } from "./session_config.ts";
import { receiverCrews } from "./session_crew.ts";
import type { ReceiverCalls, ReceiverJob, ReceiverReports } from "./session_messages.ts";

/** A listening receiver of one migration, made by {@linkcode listen}. */
export class Receiver implements AsyncDisposable {
  readonly #table: StatisticsTable;
  readonly #thread: ServiceThread<ReceiverCalls, ReceiverReports>;
  readonly #pageSize: number;
  readonly #devices: readonly DeviceQueue[];
  readonly #announced = Promise.withResolvers<readonly RamBlock[]>();
  readonly #listening: Promise<Endpoint>;
  readonly #received: Promise<void>;
  #endpoint = "";
  #blocks: readonly RamBlock[] = [];
  #state: GuestState | undefined;
  #channels: number;
  #completed: Promise<Statistics> | undefined;

  private constructor(options: ListenOptions, config: ReceiverConfig) {
    this.#pageSize = config.pageSize;
    this.#channels = config.channels ?? 0;
    this.#table = new StatisticsTable(config.channels ?? CHANNELS_MAX);
    const statistics = this.#table.buffer;
    const job = { role: "receiver", config, statistics } satisfies Unstarted<ReceiverJob>;
    const owner = { side: "destination", signal: options.signal } as const;
    const reports: ReceiverReports = {
      warning: (warning) => options.onWarning?.(warning),
      blocks: (blocks, channels) => {
        this.#channels = channels;
        this.#blocks = blocks.map((shared) => ownBlock(shared, options.blocks));
        this.#announced.resolve(this.#blocks);
      },
      loaded: async (state) => {
        this.#state = state;
        await options.finalize?.(this.#blocks, state);
      },
    };
    this.#thread = new ServiceThread<ReceiverCalls, ReceiverReports>(
      job,
      owner,
      reports,
      receiverCrews(config),
    );
    this.#thread.keep(holdBlocks(options.blocks ?? []));
    const { control } = this.#thread;
    this.#devices = config.devices.map(({ queue }) => new DeviceQueue(queue, control));
    // Both at once: whoever connects in the same moment does not wait for our event loop.
    this.#listening = this.#thread.post("listen");
    this.#received = this.#thread.post("complete");
  }

  /** Listens; see {@linkcode listen}. */
  static async listen(options: ListenOptions): Promise<Receiver> {
    checkOptionNames(LISTEN_OPTIONS, options);
    const config = await withAddress(receiverConfig(options));
    return started(new Receiver(options, config), async (receiver) => {
      receiver.#endpoint = formatEndpoint(await receiver.#thread.during(receiver.#listening));
    });
  }

  /** Where the receiver listens, with the port that was chosen for port 0. */
  get endpoint(): string {
    return this.#endpoint;
  }

  /** The blocks, once they are known; their memory belongs to the caller and outlives the receiver. */
  get blocks(): readonly RamBlock[] {
    return this.#blocks;
  }

  /** What is not RAM, once all of it has arrived; only with option `capture`. */
  get state(): GuestState | undefined {
    return this.#state;
  }

  /** Waits until the sender has announced its blocks. No page need have arrived yet. */
  announced(): Promise<readonly RamBlock[]> {
    return this.#thread.during(this.#announced.promise);
  }

  /**
   * Waits until everything is in place and the sender has been told so.
   *
   * @returns The final statistics; the data is in {@linkcode blocks}.
   */
  complete(): Promise<Statistics> {
    return (this.#completed ??= this.#complete());
  }

  /** What has been loaded of each device so far. */
  deviceProgress(): DeviceProgress[] {
    return loadedProgress(this.#devices);
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): Statistics {
    return this.#table.snapshot(this.#channels, this.#pageSize);
  }

  /** Ends the session and releases everything but the blocks; safe to call twice, in any state. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#thread.stop();
  }

  async #complete(): Promise<Statistics> {
    await this.#thread.completed(this.#received);
    return this.statistics();
  }
}

/**
 * A block that a thread received into. Given blocks stay the caller's own objects; announced ones are
 * made here.
 */
export function ownBlock(shared: SharedRamBlock, given: readonly RamBlock[] | undefined): RamBlock {
  const found = given?.find(({ idstr }) => idstr === shared.idstr);
  return found ?? RamBlock.attach({ ...shared, zeroed: false });
}

/**
 * Listens for one migration.
 *
 * @returns A receiver, already listening; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when listening fails, for example because the port is in use.
 *
 * @example
 * ```ts
 * await using receiver = await listen({ endpoint: "127.0.0.1:0", channels: 4 });
 * console.log(receiver.endpoint);
 * await receiver.complete();
 * const [block] = receiver.blocks;
 * ```
 */
export function listen(options: ListenOptions): Promise<Receiver> {
  return Receiver.listen(options);
}
