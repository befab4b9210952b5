/**
 * The asynchronous relay: everything runs on workers, and the caller's event loop stays free.
 *
 * @module
 */
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CHANNELS_MAX } from "../limits.ts";
import { formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import { channelCrew } from "../session/session_crew.ts";
import type { Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import type { RelayCalls, RelayJob, RelayReports } from "./relay_messages.ts";
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
  readonly #incoming: StatisticsTable;
  readonly #outgoing: StatisticsTable;
  readonly #thread: ServiceThread<RelayCalls, RelayReports>;
  readonly #listening: Promise<Endpoint>;
  readonly #relayed: Promise<void>;
  #endpoint = "";
  #channels: number;

  private constructor(config: RelayConfig, { signal, onWarning }: RelayOptions) {
    this.#config = config;
    this.#channels = config.incomingChannels ?? 0;
    this.#incoming = new StatisticsTable(config.incomingChannels ?? CHANNELS_MAX);
    this.#outgoing = new StatisticsTable(config.outgoingChannels);
    const statistics = { incoming: this.#incoming.buffer, outgoing: this.#outgoing.buffer };
    const job = { role: "relay", config, ...statistics } satisfies Unstarted<RelayJob>;
    const owner = { side: "destination", signal } as const;
    const reports: RelayReports = {
      warning: (warning) => onWarning?.(warning),
      connected: (incoming) => void (this.#channels = incoming),
    };
    this.#thread = new ServiceThread<RelayCalls, RelayReports>(job, owner, reports, [
      channelCrew("relay-channel", config.incoming, config.incomingChannels),
      channelCrew("send-channel", config.outgoing, config.outgoingChannels),
      { program: "entry", role: "relay-return", count: 1 },
    ]);
    this.#listening = this.#thread.post("listen");
    this.#relayed = this.#thread.post("run");
  }

  /** See {@linkcode relay}. */
  static async listen(options: RelayOptions): Promise<Relay> {
    return started(new Relay(await relayConfig(options), options), async (made) => {
      made.#endpoint = formatEndpoint(await made.#thread.during(made.#listening));
    });
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
    await this.#thread.completed(this.#relayed);
    return this.statistics();
  }

  /** Ends the relay and with it the migration, if it is not complete. Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#thread.stop();
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
