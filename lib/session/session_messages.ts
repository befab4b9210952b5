/**
 * What the thread of a session is started with, and what it and its caller say to each other.
 *
 * @module
 */
import type { SaveConfig } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { SharedRamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { ReceiverConfig, SenderConfig } from "./options.ts";
import type { SessionWarning } from "./session_warning.ts";

/** The thread that runs a sender for a caller on the event loop. */
export interface SenderJob {
  readonly role: "sender";
  readonly config: SenderConfig;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
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

/** The thread that runs a receiver for a caller on the event loop. */
export interface ReceiverJob {
  readonly role: "receiver";
  readonly config: ReceiverConfig;
  /** Where the thread waits for the caller's last step. */
  readonly gate: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
}

/** What a receiver's thread reports. */
export type ReceiverReport =
  | { readonly kind: "warning"; readonly warning: SessionWarning }
  | { readonly kind: "listening"; readonly endpoint: Endpoint }
  | {
      readonly kind: "blocks";
      readonly blocks: readonly SharedRamBlock[];
      readonly channels: number;
    }
  | { readonly kind: "loaded"; readonly state: GuestState | undefined }
  | { readonly kind: "completed" };
