/**
 * What the thread of a session is started with, and what it and its caller say to each other.
 *
 * @module
 */
import type { SaveConfig } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { SharedRamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { ServiceJob } from "../thread/service.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { ReceiverConfig, SenderConfig } from "./session_config.ts";
import type { SessionWarning } from "./session_warning.ts";

/** The thread that runs a sender for a caller on the event loop. */
export interface SenderJob extends ServiceJob {
  readonly role: "sender";
  readonly config: SenderConfig;
  readonly statistics: SharedArrayBuffer;
}

/** The steps of a sender. Those that may register a device tell how clients for its state are made. */
export interface SenderCalls {
  connect(): DeviceClientHandle | undefined;
  send(rounds: number, roundDelayMs: number): void;
  range(block: number, first: number, end: number): void;
  bitmap(block: number, pages: number, buffer: SharedArrayBuffer, byteOffset: number): void;
  pages(block: number, pages: Uint32Array): void;
  device(device: SaveConfig): DeviceClientHandle | undefined;
  deviceState(idstr: string, instanceId: number, bytes: Uint8Array, config: boolean): void;
  sync(): void;
  complete(): void;
}

/** The thread that runs a receiver for a caller on the event loop. */
export interface ReceiverJob extends ServiceJob {
  readonly role: "receiver";
  readonly config: ReceiverConfig;
  readonly statistics: SharedArrayBuffer;
}

/** The steps of a receiver. */
export interface ReceiverCalls {
  listen(): Endpoint;
  complete(): void;
}

/** What a receiver's thread reports. */
export interface ReceiverReports {
  warning(warning: SessionWarning): void;
  blocks(blocks: readonly SharedRamBlock[], channels: number): void;
  /** All of it is in place; the thread waits for the caller's own last step. */
  loaded(state: GuestState | undefined): Promise<void>;
}
