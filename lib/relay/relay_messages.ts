/**
 * What the threads of a relay are started with and what they report.
 *
 * @module
 */
import type { SendStateHandle } from "../engine/send_state.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { TransportChoice } from "../net/transport_of_session.ts";
import type { ReceivingHalf, SendingHalf } from "../net/transport.ts";
import type { ReceiveChannelParts } from "../session/channel_messages.ts";
import type { Timeouts } from "../session/options.ts";
import type { SessionWarning } from "../session/session_warning.ts";
import type { ServiceJob } from "../thread/service.ts";
import type { RelayConfig } from "./relay_config.ts";

/** The thread that runs a relay for a caller on the event loop. */
export interface RelayJob extends ServiceJob {
  readonly role: "relay";
  readonly config: RelayConfig;
  readonly incoming: SharedArrayBuffer;
  readonly outgoing: SharedArrayBuffer;
}

/** One direction of a main connection, and what says how bytes travel on it. */
interface RelayEndpoint<Half> extends TransportChoice {
  readonly half: Half;
}

/** The steps of a relay. */
export interface RelayCalls {
  listen(): Endpoint;
  run(): void;
}

/** What a relay's thread reports. */
export interface RelayReports {
  warning(warning: SessionWarning): void;
  /** So many channels are there on each side. */
  connected(incoming: number, outgoing: number): void;
}

/** What the incoming channels need beside what all receive channels do. */
export interface RelaySink {
  readonly role: "relay-channel";
  /** Of the outgoing channels. */
  readonly outgoing: SendStateHandle;
  /** Memory for the pages of one packet for each slot of the send state. */
  readonly stage: SharedArrayBuffer;
}

/** An incoming channel's thread. */
export type RelayChannelJob = RelaySink & ReceiveChannelParts;

/** The thread that carries a relay's answers back. */
export interface RelayReturnJob {
  readonly role: "relay-return";
  readonly timeouts: Timeouts;
  /** The source's main connection, for answers. */
  readonly source: RelayEndpoint<SendingHalf>;
  /** The destination's main connection, where they come from. */
  readonly destination: RelayEndpoint<ReceivingHalf>;
  readonly confirmation: SharedArrayBuffer;
  /** The end of what has gone through. */
  readonly tail: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  /** Address of the destination, for messages. */
  readonly peer: string;
}
