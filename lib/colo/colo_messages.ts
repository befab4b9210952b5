/**
 * What the threads of a COLO pair are started with and what they say. Pages never travel as messages.
 *
 * @module
 */
import type { SharedRamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { ReceiverConfig, SenderConfig } from "../session/options.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { CheckpointStatistics } from "./checkpoint_statistics.ts";

/** The thread that runs a primary. */
export interface ColoPrimaryJob {
  readonly role: "colo-primary";
  readonly config: PrimaryConfig;
  readonly progress: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** The thread that runs a secondary. */
export interface ColoSecondaryJob {
  readonly role: "colo-secondary";
  readonly config: SecondaryConfig;
  /** Where the thread waits for the caller's listeners. */
  readonly gate: SharedArrayBuffer;
  readonly progress: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** Checked options of a primary; cloneable. */
export interface PrimaryConfig extends SenderConfig {
  readonly stateOverChannels: boolean;
}

/** Checked options of a secondary; cloneable. */
export interface SecondaryConfig extends ReceiverConfig {
  readonly revertLocalWrites: boolean;
  /** Threads that put checkpoints in place. */
  readonly threads: number;
}

/** A bitmap in the form that can be posted. */
interface SharedBitmap {
  readonly pages: number;
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
}

/** One step of a primary, carried out in the order of arrival. */
export type PrimaryCommand =
  | { readonly kind: "connect" }
  | { readonly kind: "start"; readonly rounds: number; readonly roundDelayMs: number }
  | { readonly kind: "request" }
  | {
      readonly kind: "commit";
      readonly bitmaps: readonly SharedBitmap[];
      readonly deviceState: Uint8Array;
    }
  | { readonly kind: "close" };

/** A primary's answer to each command; failures are in the session control. */
export interface PrimaryReply {
  readonly ok: boolean;
  /** To `commit`: how long pages and state were on their way, in milliseconds. */
  readonly transferMs?: number | undefined;
}

/** A checkpoint as a secondary gets it. */
export interface ReceivedCheckpoint {
  /** Number of the checkpoint, from 1. */
  readonly epoch: number;
  /** What the primary sent with it. */
  readonly deviceState: Uint8Array;
  /** With `capture`: what the guest has beside RAM, from which a recording is made. */
  readonly guest?: GuestState | undefined;
  readonly pages: number;
  readonly wireBytes: number;
  readonly transferMs: number;
  /** Part of `CheckpointStatistics.applyMs`: without the loading of the device state. */
  readonly applyMs: number;
}

/** What a secondary's thread reports. */
export type SecondaryReport =
  | { readonly kind: "listening"; readonly endpoint: Endpoint }
  | {
      readonly kind: "blocks";
      readonly blocks: readonly SharedRamBlock[];
      readonly caches: readonly SharedRamBlock[];
      readonly channels: number;
    }
  | { readonly kind: "ready"; readonly guest: GuestState | undefined }
  | { readonly kind: "request" }
  | { readonly kind: "checkpoint"; readonly checkpoint: ReceivedCheckpoint }
  | { readonly kind: "loaded"; readonly statistics: CheckpointStatistics };
