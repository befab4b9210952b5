/**
 * What worker threads are started with and what they say: start, end, failure. Pages and packets
 * never travel as messages.
 *
 * @module
 */
import type { ColoPrimaryJob, ColoSecondaryJob } from "../colo/colo_messages.ts";
import type { ResolvedCompression } from "../codec/registry.ts";
import type { LoadConfig, SaveConfig } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { DeviceQueueHandle } from "../engine/device_queue.ts";
import type { SendStateHandle } from "../engine/send_state.ts";
import type { SharedFileBlock } from "../file/file_round.ts";
import type { BlockTableHandle } from "../memory/block_table.ts";
import type { SharedRamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { ErrorRecord } from "../errors.ts";
import type { Analysis } from "../qemu/analyze_file.ts";
import type { RelayConfig } from "../relay/relay_config.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { ReceiverConfig, SenderConfig, Timeouts } from "../session/options.ts";
import type { WorkerFunction } from "./worker_function.ts";

/** A send channel's thread. */
export interface SendChannelJob {
  readonly role: "send-channel";
  readonly channel: number;
  readonly endpoint: Endpoint;
  readonly uuid: Uint8Array;
  readonly compression: ResolvedCompression;
  readonly detectZeroPages: boolean;
  /** This channel's share in bytes per second, 0 for no limit. */
  readonly bandwidth: number;
  readonly timeouts: Timeouts;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly state: SendStateHandle;
  readonly blocks: BlockTableHandle;
  /** Whether device state is known to come. */
  readonly devices: boolean;
  /** First of this side's places for descriptors. */
  readonly descriptors: number;
}

/** A receive channel's thread. */
export interface ReceiveChannelJob {
  readonly role: "receive-channel";
  readonly channel: number;
  readonly pageSize: number;
  readonly compression: ResolvedCompression;
  readonly timeouts: Timeouts;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly state: SharedArrayBuffer;
  readonly blocks: BlockTableHandle;
  readonly devices: readonly DeviceQueueHandle[];
  /** Where packets go on to, when they do not stay here. */
  readonly relay: RelayHandle | undefined;
}

/** What a relay's receive channels need to hand packets to its send channels. */
export interface RelayHandle {
  readonly state: SendStateHandle;
  /** Memory for the pages of one packet for each slot of the send state. */
  readonly stage: SharedArrayBuffer;
}

/** The thread that runs a sender for a caller on the event loop. */
export interface SenderJob {
  readonly role: "sender";
  readonly config: SenderConfig;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** The thread that runs a receiver for a caller on the event loop. */
export interface ReceiverJob {
  readonly role: "receiver";
  readonly config: ReceiverConfig;
  /** Where the thread waits for the caller's last step. */
  readonly gate: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** What the threads of a pool are for. */
export type PoolPurpose = "save" | "load";

/** A thread of a pool. */
export interface PoolJob {
  readonly role: "pool";
  /** What the thread is for, if that is known: it rehearses it before its first task. */
  readonly purpose: PoolPurpose | undefined;
  /** Row of this thread in the pool's words. */
  readonly worker: number;
  readonly abortOnError: boolean;
  readonly pool: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

/** A thread of a page crew. */
export interface PageWorkerJob {
  readonly role: "page-worker";
  readonly control: SharedArrayBuffer;
  readonly blocks: BlockTableHandle;
  readonly task: SharedArrayBuffer;
}

/** A thread that writes pages to a mapped-ram file or reads them from it. */
export interface FileChannelJob {
  readonly role: "file-channel";
  readonly channel: number;
  readonly mode: "read" | "write";
  readonly path: string;
  /** Whether the file is stored compressed; such files are only read. */
  readonly compressed: boolean;
  /** Whether to ask for O_DIRECT. */
  readonly direct: boolean;
  readonly detectZeroPages: boolean;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly round: SharedArrayBuffer;
  readonly blocks: readonly SharedFileBlock[];
}

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
  | { readonly kind: "listening"; readonly endpoint: Endpoint }
  | { readonly kind: "connected"; readonly incoming: number; readonly outgoing: number };

/** A thread that analyses one file and posts an {@linkcode AnalysisReport}. */
export interface AnalyzerJob {
  readonly role: "analyzer";
  readonly path: string;
  readonly offset: number;
}

/** What an analyzer found, or why it could not. */
export interface AnalysisReport {
  readonly analysis?: Analysis | undefined;
  readonly error?: ErrorRecord | undefined;
}

/** Everything a worker can be started for. */
export type WorkerJob =
  | SendChannelJob
  | ReceiveChannelJob
  | SenderJob
  | ReceiverJob
  | PoolJob
  | PageWorkerJob
  | FileChannelJob
  | AnalyzerJob
  | RelayJob
  | RelayReturnJob
  | ColoPrimaryJob
  | ColoSecondaryJob;

/** Saving one device. */
export interface SaveTask {
  readonly kind: "save";
  readonly device: SaveConfig;
  readonly client: DeviceClientHandle;
}

/** Loading one device. */
export interface LoadTask {
  readonly kind: "load";
  readonly device: LoadConfig;
  readonly control: SharedArrayBuffer;
}

/** What a thread of a pool can do. */
export type PoolTask =
  | { readonly kind: "call"; readonly function: WorkerFunction }
  | { readonly kind: "rehearse"; readonly purpose: PoolPurpose }
  | SaveTask
  | LoadTask;

/** What the owner of a pool says to its threads; they answer in shared words. */
export type PoolCommand =
  { readonly kind: "task"; readonly task: PoolTask } | { readonly kind: "close" };

/** One pass over all pending pages, or the end. */
export interface FileChannelCommand {
  readonly kind: "pass" | "close";
}

/** Sent once the file is open and after each pass; failures are in the session control. */
export interface FileChannelReply {
  readonly ok: boolean;
}

/** One step of a sender, carried out in the order of arrival. */
export type SenderCommand =
  | { readonly kind: "connect" }
  | { readonly kind: "send"; readonly rounds: number; readonly roundDelayMs: number }
  | { readonly kind: "range"; readonly block: number; readonly first: number; readonly end: number }
  | {
      readonly kind: "bitmap";
      readonly block: number;
      readonly pages: number;
      readonly buffer: SharedArrayBuffer;
      readonly byteOffset: number;
    }
  | { readonly kind: "pages"; readonly block: number; readonly pages: Uint32Array }
  | { readonly kind: "device"; readonly device: SaveConfig }
  | {
      readonly kind: "device-state";
      readonly idstr: string;
      readonly instanceId: number;
      readonly bytes: Uint8Array;
      readonly config: boolean;
    }
  | { readonly kind: "sync" }
  | { readonly kind: "complete" }
  | { readonly kind: "close" };

/** A sender's answer to each command; failures are in the session control. */
export interface SenderReply {
  readonly ok: boolean;
  /** Makes clients for device state; said when a device has been registered. */
  readonly client?: DeviceClientHandle | undefined;
}

/** What a receiver's thread reports. */
export type ReceiverReport =
  | { readonly kind: "listening"; readonly endpoint: Endpoint }
  | {
      readonly kind: "blocks";
      readonly blocks: readonly SharedRamBlock[];
      readonly channels: number;
    }
  | { readonly kind: "loaded"; readonly state: GuestState | undefined }
  | { readonly kind: "completed" };
