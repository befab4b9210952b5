/**
 * The connections and channel threads of whoever takes a source's place at the other end: listening,
 * accepting, and the sync points at which all channels stand. What happens to the pages is decided by
 * what the channels are given.
 *
 * @module
 */
import type { DeviceQueueHandle } from "../engine/device_queue.ts";
import {
  closeChannels,
  endChannels,
  requireQuietChannels,
  type EndingChannels,
} from "../engine/receive_end.ts";
import { ReceiveState } from "../engine/receive_state.ts";
import type { StatisticsTable } from "../engine/statistics.ts";
import {
  ChannelError,
  HandshakeError,
  LimitError,
  TimeoutError,
  type ErrorContext,
} from "../errors.ts";
import { CHANNELS_MAX, REFUSAL_DELAY_MS, SYNC_LAG_BYTES } from "../limits.ts";
import type { BlockTableHandle } from "../memory/block_table.ts";
import { Acceptor, type AcceptedConnections } from "../net/acceptor.ts";
import type { Connection } from "../net/connection.ts";
import { listenAt, type Endpoint } from "../net/endpoint.ts";
import type { Listener } from "../net/endpoint_kind.ts";
import { OpenLink } from "../net/open_link.ts";
import { sessionTransport } from "../net/transport_of_session.ts";
import type { Link, Transport } from "../net/transport.ts";
import { pause } from "../sync/semaphore.ts";
import {
  CHANNEL_DESCRIPTOR,
  LISTENER_DESCRIPTOR,
  MAIN_DESCRIPTOR,
  type SessionControl,
} from "../sync/session_control.ts";
import type { ThreadJob } from "../thread/thread_messages.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import { channelProgram, type ReceiveChannelParts } from "./channel_messages.ts";
import type { SessionConfig } from "./session_config.ts";
import type { SessionWarning } from "./session_warning.ts";

/** Connections that the user is told of when they were refused; the others are only counted. */
const REFUSAL_WARNINGS_MAX = 16;

/** What a receive side is made of. */
interface ReceiveSideParts {
  readonly config: SessionConfig;
  /** Undefined: as many as connect. */
  readonly channels: number | undefined;
  /** Whether to take any uuid and not only the configured one. */
  readonly anyUuid: boolean;
  readonly control: SessionControl;
  readonly statistics: StatisticsTable;
  readonly onWarning?: ((warning: SessionWarning) => void) | undefined;
  readonly blocks: BlockTableHandle;
  readonly devices: readonly DeviceQueueHandle[];
  /** Role of the channels' threads, and what that needs, where pages do not go into the blocks. */
  readonly sink?: ThreadJob | undefined;
}

/** A source that is there with all its channels. */
interface AcceptedSource {
  /** The main connection. */
  readonly main: OpenLink;
  /** The uuid that its channels named. */
  readonly uuid: Uint8Array;
}

/** See the module comment. Used by one thread. */
export class ReceiveSide {
  readonly #parts: ReceiveSideParts;
  readonly #state: ReceiveState;
  readonly #workers: WorkerGroup;
  readonly #transport: Transport;
  readonly #links: Link[] = [];
  #listener: Listener<Endpoint> | undefined;
  #channels: number;
  #peer: string | undefined;
  #syncPoints = 0;

  /** Starts the channels' threads if their number is known. */
  constructor(parts: ReceiveSideParts) {
    this.#parts = parts;
    this.#transport = sessionTransport(parts.config);
    this.#state = new ReceiveState(parts.channels ?? CHANNELS_MAX, parts.control);
    this.#workers = new WorkerGroup(parts.control);
    this.#channels = parts.channels ?? 0;
    for (let channel = 0; channel < this.#channels; channel++) this.#startChannel(channel);
  }

  /** Channels of the source, 0 as long as they are not known. */
  get channels(): number {
    return this.#channels;
  }

  /** Address of the source, once somebody has connected. */
  get peer(): string | undefined {
    return this.#peer;
  }

  /** Opens the socket; returns where it listens, with the port that was chosen for port 0. */
  listen(): Endpoint {
    const { control, config } = this.#parts;
    // A mistake in it is told before anybody connects.
    for (const message of this.#transport.prepare("server")) {
      this.#parts.onWarning?.({ code: "WARN_MULTIFD_TLS_KEY_FILE", message });
    }
    this.#listener = listenAt(config.endpoint, CHANNELS_MAX + 1);
    control.registerDescriptor(LISTENER_DESCRIPTOR, this.#listener.fd);
    return this.#listener.endpoint;
  }

  /**
   * Waits for one source with all its connections; the socket is closed then.
   *
   * @param refuse Called before a source is refused whose main connection is here.
   */
  accept(refuse: (main: Connection, error: unknown) => void): AcceptedSource {
    const { config, control, anyUuid, channels, statistics } = this.#parts;
    const { acceptMs, connectMs } = config.timeouts;
    const uuid = anyUuid ? undefined : config.uuid;
    const counters = statistics.main();
    let refusals = 0;
    let accepted: AcceptedConnections | undefined;
    {
      using acceptor = new Acceptor(
        this.#listener!,
        this.#transport,
        { channels, channelsMax: CHANNELS_MAX, uuid, acceptMs, connectMs },
        control,
        {
          onChannel: (channel, link, peer) => this.#takeChannel(channel, link, peer),
          onStranger: () => counters.addStranger(),
          onRefused: (message) => {
            if (refusals++ >= REFUSAL_WARNINGS_MAX) return;
            this.#parts.onWarning?.({ code: "WARN_MULTIFD_TLS_REFUSED", message });
          },
        },
      );
      try {
        accepted = acceptor.run();
      } catch (error) {
        if (error instanceof HandshakeError) this.delayRefusal(error);
        const main = acceptor.findMain();
        if (main !== undefined) {
          refuse(this.#transport.attach(main, control, config.timeouts), error);
        }
        throw error;
      }
    }
    if (accepted === undefined) {
      throw new ChannelError(
        "ERR_MULTIFD_CHANNEL_STOPPED",
        "Cannot accept: the session was stopped",
      );
    }
    this.#peer = accepted.peer;
    // Before anything can fail: from here on the session closes it.
    control.registerDescriptor(MAIN_DESCRIPTOR, accepted.main.fd);
    counters.setSuite(this.#transport.encryption(accepted.main));
    this.#checkChannelIds(accepted.channels);
    this.#channels = accepted.channels;
    // One migration per receiver: whoever comes later is refused at once.
    control.closeDescriptor(LISTENER_DESCRIPTOR);
    return {
      main: new OpenLink(this.#transport, accepted.main),
      uuid: accepted.uuid,
    };
  }

  /**
   * To be called before a source is refused for `error`: leaves it time to get through its start. What
   * its channels do meanwhile is no better reason.
   */
  delayRefusal(error: unknown, context: ErrorContext = {}): void {
    const { control } = this.#parts;
    if (control.stopping) return; // then the error is what came of an earlier one
    pause(REFUSAL_DELAY_MS, control);
    control.supersede(error, { side: "destination", peer: this.#peer, ...context });
  }

  /**
   * Waits until every channel stands at the same sync point. What is still in the sockets may take its
   * time over a slow network, but is not more than they hold.
   */
  awaitSyncPoint(): void {
    const { control, config } = this.#parts;
    const limitMs = config.timeouts.stallMs;
    const bytesMax = this.#receivedBytes() + this.#channels * SYNC_LAG_BYTES;
    for (let reached = 0; reached < this.#channels;) {
      const { activity } = control;
      const result = this.#state.syncReached.take(limitMs);
      control.throwIfFailed();
      if (result === "stopped") {
        throw new ChannelError(
          "ERR_MULTIFD_CHANNEL_STOPPED",
          "Cannot synchronise: session stopped",
        );
      }
      // One that stands at this sync point cannot have ended.
      const ended = this.#state.endedChannel;
      if (ended >= 0) {
        throw new ChannelError(
          "ERR_MULTIFD_CHANNEL_ENDED",
          `Cannot synchronise: the peer ended channel ${ended} before the sync point`,
          { channel: ended },
        );
      }
      if (result === "taken") reached++;
      else if (control.activity === activity || this.#receivedBytes() > bytesMax) {
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT_SYNC",
          `Cannot synchronise: ${reached} of ${this.#channels} channels came to the sync point within ${limitMs} ms; ` +
            "the source must send SYNC on every channel for each marker of its main stream",
        );
      }
    }
    this.#syncPoints++;
  }

  /** Lets all channels go on after a sync point. */
  releaseChannels(): void {
    for (let channel = 0; channel < this.#channels; channel++) {
      this.#state.released(channel).post();
    }
  }

  /**
   * Ends all channels; nothing may be left on any of them that the sync points so far do not cover.
   *
   * @throws {PacketError} when something is.
   */
  endChannels(): void {
    endChannels(this.#ending(), this.#parts.config.timeouts.stallMs);
  }

  /** As {@linkcode endChannels}, but the source hears nothing of it until the session ends. */
  closeChannels(): void {
    closeChannels(this.#ending());
  }

  /** As {@linkcode endChannels}, for a session that goes on: the channels stay as they are. */
  requireQuietChannels(): void {
    requireQuietChannels(this.#ending());
  }

  /** Joins the channels; the session must be stopping. */
  join(): void {
    this.#workers.join();
    this.#transport[Symbol.dispose]();
    this.#listener = undefined;
  }

  #ending(): EndingChannels {
    return {
      state: this.#state,
      control: this.#parts.control,
      transport: this.#transport,
      links: this.#links,
      syncPoints: this.#syncPoints,
    };
  }

  #receivedBytes(): number {
    const { statistics, config } = this.#parts;
    return statistics.snapshot(this.#channels, config.pageSize).multifdBytes;
  }

  #takeChannel(channel: number, link: Link, peer: string): void {
    const { control, channels } = this.#parts;
    this.#peer = peer;
    control.registerDescriptor(CHANNEL_DESCRIPTOR + channel, link.fd);
    this.#links[channel] = link;
    this.#state.setLink(channel, link);
    if (channels === undefined) this.#startChannel(channel);
    this.#state.connected(channel).post();
  }

  /** An open number of channels still means ids from 0 without gaps. */
  #checkChannelIds(channels: number): void {
    for (let channel = 0; channel < channels; channel++) {
      if (!(channel in this.#links)) {
        throw new LimitError(
          "ERR_MULTIFD_LIMIT_CHANNELS",
          `Cannot accept connections: ${channels} channels connected and none has id ${channel}`,
        );
      }
    }
  }

  #startChannel(channel: number): void {
    const { config, control, statistics, blocks, devices } = this.#parts;
    const { sink = { role: "receive-channel" } } = this.#parts;
    const { endpoint, tls, pageSize, compression, timeouts } = config;
    const parts: ReceiveChannelParts = {
      channel,
      endpoint,
      tls,
      pageSize,
      compression,
      timeouts,
      control: control.buffer,
      statistics: statistics.buffer,
      state: this.#state.buffer,
      blocks,
      devices,
    };
    this.#workers.start({ ...sink, ...parts }, channelProgram(tls));
  }
}
