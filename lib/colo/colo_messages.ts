/**
 * What the threads of a COLO pair are started with and what they say. Pages never travel as messages.
 *
 * @module
 */
import type { SharedRamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { ReceiverConfig, SenderConfig } from "../session/session_config.ts";
import type { ServiceJob } from "../thread/service.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { CheckpointStatistics } from "./checkpoint_statistics.ts";

/** The thread that runs a primary. */
export interface ColoPrimaryJob extends ServiceJob {
  readonly role: "colo-primary";
  readonly config: PrimaryConfig;
  readonly progress: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** The thread that runs a secondary. */
export interface ColoSecondaryJob extends ServiceJob {
  readonly role: "colo-secondary";
  readonly config: SecondaryConfig;
  readonly progress: SharedArrayBuffer;
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

/** The steps of a primary. */
export interface PrimaryCalls {
  connect(): void;
  start(rounds: number, roundDelayMs: number): void;
  request(): void;
  /** Gives how long pages and state were on their way, in milliseconds. */
  commit(bitmaps: readonly SharedBitmap[], deviceState: Uint8Array): number;
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

/** The steps of a secondary. */
export interface SecondaryCalls {
  listen(): Endpoint;
  run(): void;
}

/** What a secondary's thread reports; it waits until a request and a checkpoint are dealt with. */
export interface SecondaryReports {
  blocks(
    blocks: readonly SharedRamBlock[],
    caches: readonly SharedRamBlock[],
    channels: number,
  ): void;
  ready(guest: GuestState | undefined): Promise<void>;
  request(): Promise<void>;
  checkpoint(checkpoint: ReceivedCheckpoint): Promise<void>;
  loaded(statistics: CheckpointStatistics): Promise<void>;
}
