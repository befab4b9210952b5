/**
 * What the threads of a relay are started with and what they report.
 *
 * @module
 */
import type { Endpoint } from "../net/endpoint.ts";
import type { Timeouts } from "../session/options.ts";
import type { SessionWarning } from "../session/session_warning.ts";
import type { RelayConfig } from "./relay_config.ts";

/** The thread that runs a relay for a caller on the event loop. */
export interface RelayJob {
  readonly role: "relay";
  readonly config: RelayConfig;
  readonly control: SharedArrayBuffer;
  readonly incoming: SharedArrayBuffer;
  readonly outgoing: SharedArrayBuffer;
}

/** The thread that carries a relay's answers back. */
export interface RelayReturnJob {
  readonly role: "relay-return";
  readonly timeouts: Timeouts;
  readonly confirmation: SharedArrayBuffer;
  /** The end of what has gone through. */
  readonly tail: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  /** Address of the destination, for messages. */
  readonly peer: string;
}

/** What a relay's thread reports. */
export type RelayReport =
  | { readonly kind: "warning"; readonly warning: SessionWarning }
  | { readonly kind: "listening"; readonly endpoint: Endpoint }
  | { readonly kind: "connected"; readonly incoming: number; readonly outgoing: number };
