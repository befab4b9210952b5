/**
 * The connections and channel threads of whoever sends: connecting the main connection first and all
 * channels after it, and synchronising the channels.
 *
 * @module
 */
import type { SendState } from "../engine/send_state.ts";
import type { StatisticsTable } from "../engine/statistics.ts";
import { TLS_VERDICT_MS, WORKER_START_LIMIT_MS } from "../limits.ts";
import type { BlockTableHandle } from "../memory/block_table.ts";
import { connectTo, formatEndpoint } from "../net/endpoint.ts";
import { OpenLink } from "../net/open_link.ts";
import { sessionTransport } from "../net/transport_of_session.ts";
import type { Transport } from "../net/transport.ts";
import { BandwidthShare } from "../sync/bandwidth_limit.ts";
import { MAIN_DESCRIPTOR, type SessionControl } from "../sync/session_control.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import { channelProgram, type SendChannelJob } from "./channel_messages.ts";
import type { ByteSink } from "../wire/byte_writer.ts";
import type { SessionConfig } from "./session_config.ts";
import { requireTaken } from "./sender_setup.ts";

/** What a send side is made of. */
interface SendSideParts {
  readonly config: SessionConfig;
  readonly channels: number;
  /** Whether the channels look for zero pages. */
  readonly detectZeroPages: boolean;
  /** Of the limit on bandwidth; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
  readonly control: SessionControl;
  readonly statistics: StatisticsTable;
  readonly state: SendState;
  readonly blocks: BlockTableHandle;
  /** Whether device state is known to come. */
  readonly devices: boolean;
  /** First of this side's places for descriptors. */
  readonly descriptors: number;
}

/** See the module comment. Used by one thread. */
export class SendSide {
  readonly #parts: SendSideParts;
  readonly #workers: WorkerGroup;
  readonly #transport: Transport;

  /** Starts the channels' threads; nothing is connected before `connect()`. */
  constructor(parts: SendSideParts) {
    this.#parts = parts;
    this.#workers = new WorkerGroup(parts.control);
    this.#transport = sessionTransport(parts.config);
    for (let channel = 0; channel < parts.channels; channel++) this.#startChannel(channel);
  }

  /** Connects the main connection, then all channels; returns when these have sent their handshakes. */
  connect(): OpenLink {
    const { config, channels, control, state, descriptors } = this.#parts;
    const { endpoint, timeouts } = config;
    this.#transport.prepare("client"); // a mistake in it is told before anybody is connected to
    const fd = connectTo(endpoint, timeouts.connectMs, control, (socket) =>
      control.registerDescriptor(descriptors + MAIN_DESCRIPTOR, socket),
    );
    const peer = formatEndpoint(endpoint);
    const link = this.#transport.connect(fd, peer, timeouts.connectMs, control, TLS_VERDICT_MS);
    this.#parts.statistics.main().setSuite(this.#transport.encryption(link));
    state.openConnectGate();
    const limitMs = timeouts.connectMs + WORKER_START_LIMIT_MS;
    for (let channel = 0; channel < channels; channel++) {
      requireTaken("connect channels", state.channelsCreated.take(limitMs), control, limitMs);
    }
    return new OpenLink(this.#transport, link);
  }

  /** Where the main stream goes: to the main connection, within the limit on bandwidth if any. */
  mainSink(connection: ByteSink): ByteSink {
    const { bandwidth, control } = this.#parts;
    if (bandwidth === undefined) return connection;
    const limit = new BandwidthShare(bandwidth);
    return {
      send: (address, bytes) => {
        limit.pace(bytes, control);
        connection.send(address, bytes);
      },
    };
  }

  /** Has every channel write a SYNC packet behind all it was given, and waits for that. */
  syncChannels(): void {
    const { channels, state } = this.#parts;
    for (let channel = 0; channel < channels; channel++) state.channel(channel).requestSync();
    this.#awaitChannels("sync channels");
  }

  /**
   * Says on every channel that nothing follows, after success only: without TLS there is nothing to
   * say, and with it some destinations take an end that was not announced for an attack.
   */
  endChannels(): void {
    const { config, channels, state } = this.#parts;
    if (config.tls === undefined) return;
    for (let channel = 0; channel < channels; channel++) state.channel(channel).requestEnd();
    this.#awaitChannels("end channels");
  }

  #awaitChannels(action: string): void {
    const { config, channels, control, state } = this.#parts;
    const limitMs = config.timeouts.idleMs;
    for (let channel = 0; channel < channels; channel++) {
      const { syncDone } = state.channel(channel);
      requireTaken(action, syncDone.takeWhileActive(limitMs, control), control, limitMs);
    }
  }

  /** Wakes and joins the channels; the session must be stopping. */
  join(): void {
    this.#parts.state.wakeChannels();
    this.#workers.join();
    this.#transport[Symbol.dispose]();
  }

  #startChannel(channel: number): void {
    const { config, control, statistics, state, blocks, descriptors, bandwidth } = this.#parts;
    const { endpoint, tls, uuid, compression, timeouts } = config;
    const job = {
      role: "send-channel",
      channel,
      endpoint,
      tls,
      uuid,
      compression,
      detectZeroPages: this.#parts.detectZeroPages,
      bandwidth,
      timeouts,
      control: control.buffer,
      statistics: statistics.buffer,
      state: state.handle,
      blocks,
      devices: this.#parts.devices,
      descriptors,
    } satisfies SendChannelJob;
    this.#workers.start(job, channelProgram(tls));
  }
}
