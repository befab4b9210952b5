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
import { RamBlock } from "../memory/ram_block.ts";
import { formatEndpoint } from "../net/endpoint.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { ReceiverJob, ReceiverReport } from "./session_messages.ts";
import { FinalizeGate } from "./finalize_gate.ts";
import { receiverConfig, resolveEndpoint, resolveTimeouts, type ListenOptions } from "./options.ts";
import { SessionThread } from "./session_thread.ts";
import { warn } from "./session_warning.ts";

/** A listening receiver of one migration, made by {@linkcode listen}. */
export class Receiver implements AsyncDisposable {
  readonly #options: ListenOptions;
  readonly #control: SessionControl;
  readonly #table: StatisticsTable;
  readonly #thread: SessionThread;
  readonly #gate: FinalizeGate;
  readonly #pageSize: number;
  readonly #devices: readonly DeviceQueue[];
  readonly #listening = Promise.withResolvers<string>();
  readonly #announced = Promise.withResolvers<readonly RamBlock[]>();
  readonly #allReceived = Promise.withResolvers<void>();
  #endpoint = "";
  #blocks: readonly RamBlock[] = [];
  #state: GuestState | undefined;
  #channels: number;
  #completed: Promise<Statistics> | undefined;
  #disposed: Promise<void> | undefined;

  private constructor(options: ListenOptions) {
    const config = receiverConfig(options);
    this.#options = options;
    this.#pageSize = config.pageSize;
    this.#channels = config.channels ?? 0;
    this.#control = new SessionControl();
    this.#devices = config.devices.map(({ queue }) => new DeviceQueue(queue, this.#control));
    this.#table = new StatisticsTable(config.channels ?? CHANNELS_MAX);
    this.#gate = new FinalizeGate(undefined, this.#control);
    // Nobody may be waiting for these; a failure then shows up in `complete()`.
    this.#listening.promise.catch(() => {});
    this.#announced.promise.catch(() => {});
    this.#thread = new SessionThread(
      {
        role: "receiver",
        config,
        gate: this.#gate.buffer,
        control: this.#control.buffer,
        statistics: this.#table.buffer,
      } satisfies ReceiverJob,
      this.#control,
      "destination",
      options.signal,
    );
    this.#thread.onMessage((message) => this.#report(message as ReceiverReport));
  }

  /** Listens; see {@linkcode listen}. */
  static async listen(options: ListenOptions): Promise<Receiver> {
    const { connectMs } = resolveTimeouts(options.timeouts);
    const endpoint = await resolveEndpoint(options.endpoint, connectMs);
    const receiver = new Receiver({ ...options, endpoint });
    try {
      receiver.#endpoint = await receiver.#thread.during(receiver.#listening.promise);
      return receiver;
    } catch (error) {
      await receiver[Symbol.asyncDispose]();
      throw error;
    }
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
    return this.#devices.map(({ handle: { idstr, instanceId }, loaded }) => ({
      idstr,
      instanceId,
      ...loaded,
    }));
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): Statistics {
    return this.#table.snapshot(this.#channels, this.#pageSize);
  }

  /** Ends the session and releases everything but the blocks; safe to call twice, in any state. */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposed ??= this.#end());
  }

  async #complete(): Promise<Statistics> {
    // The thread says so before it winds down; the end of a failed one comes without a word.
    await Promise.race([this.#allReceived.promise, this.#thread.ended()]);
    const { error, completed } = this.#control;
    // Disposed too early it has no error, and a part must not be taken for the whole.
    if (error !== undefined || !completed) throw this.#thread.failure();
    return this.statistics();
  }

  async #end(): Promise<void> {
    this.#control.finish();
    await this.#thread.end();
  }

  #report(report: ReceiverReport): void {
    switch (report.kind) {
      case "warning":
        return warn(this.#options.onWarning, report.warning, this.#control);
      case "listening":
        return this.#listening.resolve(formatEndpoint(report.endpoint));
      case "blocks":
        this.#channels = report.channels;
        // Given blocks stay the caller's own objects; announced ones are made here.
        this.#blocks = report.blocks.map(
          (shared) =>
            this.#options.blocks?.find(({ idstr }) => idstr === shared.idstr) ??
            RamBlock.attach({ ...shared, zeroed: false }),
        );
        return this.#announced.resolve(this.#blocks);
      case "loaded":
        this.#state = report.state;
        void this.#finalize();
        return;
      case "completed":
        this.#allReceived.resolve();
    }
  }

  async #finalize(): Promise<void> {
    try {
      await this.#options.finalize?.(this.#blocks, this.#state);
    } catch (error) {
      this.#control.record(error, { side: "destination" });
    }
    this.#gate.open();
  }
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
