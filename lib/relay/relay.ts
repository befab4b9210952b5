/**
 * The asynchronous relay: everything runs on workers, and the caller's event loop stays free.
 *
 * @module
 */
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CHANNELS_MAX } from "../limits.ts";
import { formatEndpoint } from "../net/endpoint.ts";
import { SessionThread } from "../session/session_thread.ts";
import { warn } from "../session/session_warning.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { RelayJob, RelayReport } from "./relay_messages.ts";
import { relayConfig, type RelayConfig, type RelayOptions } from "./relay_config.ts";

/** Counters of both sides of a relay. */
export interface RelayStatistics {
  /** From the source to the relay. */
  readonly incoming: Statistics;
  /** From the relay to the destination. */
  readonly outgoing: Statistics;
}

/** A relay for one migration, made by {@linkcode relay}. */
export class Relay implements AsyncDisposable {
  readonly #config: RelayConfig;
  readonly #control = new SessionControl();
  readonly #incoming: StatisticsTable;
  readonly #outgoing: StatisticsTable;
  readonly #thread: SessionThread;
  readonly #listening = Promise.withResolvers<string>();
  #endpoint = "";
  #channels: number;
  #disposed: Promise<void> | undefined;

  private constructor(config: RelayConfig, { signal, onWarning }: RelayOptions) {
    this.#config = config;
    this.#channels = config.incomingChannels ?? 0;
    this.#incoming = new StatisticsTable(config.incomingChannels ?? CHANNELS_MAX);
    this.#outgoing = new StatisticsTable(config.outgoingChannels);
    // Nobody may be waiting for it; a failure then shows up in `complete()`.
    this.#listening.promise.catch(() => {});
    this.#thread = new SessionThread(
      {
        role: "relay",
        config,
        control: this.#control.buffer,
        incoming: this.#incoming.buffer,
        outgoing: this.#outgoing.buffer,
      } satisfies RelayJob,
      this.#control,
      "destination",
      signal,
    );
    this.#thread.onMessage((message) => {
      const report = message as RelayReport;
      if (report.kind === "connected") this.#channels = report.incoming;
      else if (report.kind === "listening")
        this.#listening.resolve(formatEndpoint(report.endpoint));
      else warn(onWarning, report.warning, this.#control);
    });
  }

  /** See {@linkcode relay}. */
  static async listen(options: RelayOptions): Promise<Relay> {
    const made = new Relay(await relayConfig(options), options);
    try {
      made.#endpoint = await made.#thread.during(made.#listening.promise);
      return made;
    } catch (error) {
      await made[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where the source connects to, with the port that was chosen for port 0. */
  get endpoint(): string {
    return this.#endpoint;
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): RelayStatistics {
    const { pageSize } = this.#config.incoming;
    return {
      incoming: this.#incoming.snapshot(this.#channels, pageSize),
      outgoing: this.#outgoing.snapshot(this.#config.outgoingChannels, pageSize),
    };
  }

  /**
   * Waits for the end of the migration: the destination's confirmation, or without a return path the
   * end of the source's stream.
   */
  async complete(): Promise<RelayStatistics> {
    await this.#thread.ended();
    const { error, completed } = this.#control;
    if (error !== undefined || !completed) throw this.#thread.failure();
    return this.statistics();
  }

  /** Ends the relay and with it the migration, if it is not complete. Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposed ??= this.#end());
  }

  async #end(): Promise<void> {
    this.#control.finish();
    await this.#thread.end();
  }
}

/**
 * Listens for the migration of a guest and passes it on to another QEMU while it arrives, with other
 * channels and another compression if wanted. Memory is bounded by the channels, 512 KiB for each
 * incoming and 1 MiB for each outgoing one. Confirmation, switchover-ack and failures pass through in
 * the other direction: until the destination has everything, the source keeps its guest.
 *
 * @returns A relay, already listening; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when listening fails.
 *
 * @example
 * ```ts
 * await using relaying = await relay({
 *   listen: { endpoint: "127.0.0.1:4444", channels: 4 },
 *   connect: { endpoint: "127.0.0.1:5555", channels: 8, compression: "zstd" },
 * });
 * const { outgoing } = await relaying.complete();
 * console.log(outgoing.wireBytes);
 * ```
 */
export function relay(options: RelayOptions): Promise<Relay> {
  return Relay.listen(options);
}
