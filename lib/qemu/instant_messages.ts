/**
 * What the thread of a restore whose memory follows the guest is started with, called for and reports.
 *
 * @module
 */
import type { ErrorRecord } from "../errors.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { TlsConfig } from "../net/tls_options.ts";
import type { SessionConfig } from "../session/session_config.ts";
import type { SharedPages } from "../snapshot/page_source.ts";
import type { ServiceJob } from "../thread/service.ts";
import type { GuestState } from "../wire/opaque_state.ts";

/** Checked options; cloneable. */
export interface InstantConfig extends SessionConfig {
  readonly pages: SharedPages;
  readonly state: GuestState;
  /** Size of the pages that the destination's memory is made of, by block. */
  readonly hostPages: readonly number[];
  readonly preempt: boolean;
  /** Of the limit on what was not asked for; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
  /** Runs of pages to be sent first. */
  readonly order: Uint32Array;
  /** Whether the order of requests is wanted. */
  readonly learn: boolean;
}

/** The thread that runs such a restore. */
export interface InstantJob extends ServiceJob {
  readonly role: "instant";
  readonly config: InstantConfig;
  readonly statistics: SharedArrayBuffer;
}

/** How a stretch of serving has ended. */
export interface ServingEnd {
  /** Why the connection is gone while the guest still needs it; absent when all is in place. */
  readonly cut?: ErrorRecord | undefined;
  /** The order of requests so far, if it is wanted. */
  readonly order?: Uint32Array | undefined;
}

/** The steps of such a restore. */
export interface InstantCalls {
  /** Connects, and says everything that goes before the switch. */
  connect(): void;
  /** Switches over and serves until all is in place or the connection is gone. */
  serve(): ServingEnd;
  /** Connects anew after a cut, and serves. */
  recover(endpoint: Endpoint, tls: TlsConfig | undefined): ServingEnd;
}

/** What its thread reports. */
export interface InstantReports {
  running(): void;
  notice(text: string): void;
}
