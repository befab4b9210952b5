/**
 * What the threads of channels are started with. Pages and packets never travel as messages.
 *
 * @module
 */
import type { ResolvedCompression } from "../codec/registry.ts";
import type { DeviceQueueHandle } from "../engine/device_queue.ts";
import type { SendStateHandle } from "../engine/send_state.ts";
import type { BlockTableHandle } from "../memory/block_table.ts";
import type { Endpoint } from "../net/endpoint.ts";
import type { TlsConfig } from "../net/tls_options.ts";
import type { ThreadProgram } from "../thread/thread_program.ts";
import type { Timeouts } from "./options.ts";

/** A send channel's thread. */
export interface SendChannelJob {
  readonly role: "send-channel";
  readonly channel: number;
  readonly endpoint: Endpoint;
  readonly tls: TlsConfig | undefined;
  readonly uuid: Uint8Array;
  readonly compression: ResolvedCompression;
  readonly detectZeroPages: boolean;
  /** Of the limit on bandwidth; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
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

/** What the thread of a receive channel needs, wherever its pages go. */
export interface ReceiveChannelParts {
  readonly channel: number;
  /** Where it was listened, which says how bytes travel. */
  readonly endpoint: Endpoint;
  readonly tls: TlsConfig | undefined;
  readonly pageSize: number;
  readonly compression: ResolvedCompression;
  readonly timeouts: Timeouts;
  readonly control: SharedArrayBuffer;
  readonly statistics: SharedArrayBuffer;
  readonly state: SharedArrayBuffer;
  readonly blocks: BlockTableHandle;
  readonly devices: readonly DeviceQueueHandle[];
}

/** A receive channel's thread that puts pages into the blocks. */
export interface ReceiveChannelJob extends ReceiveChannelParts {
  readonly role: "receive-channel";
}

/** The program that can carry out a channel's job: encryption is not in that of plain channels. */
export function channelProgram(tls: TlsConfig | undefined): ThreadProgram {
  return tls === undefined ? "channel_entry" : "entry";
}
