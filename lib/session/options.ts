/**
 * Options of a session: what a user may set, in small interfaces that each way into the library puts
 * together. The checked form is in `session_config.ts`.
 *
 * @module
 */
import type { CompressionMethod } from "../codec/methods.ts";
import type { Compression } from "../codec/registry.ts";
import type { DeviceDefinition } from "../device/device.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import type { TlsOptions } from "../net/tls_options.ts";
import type { OptionNames } from "../option_names.ts";
import type { BandwidthLimit } from "../sync/bandwidth_limit.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { SyncMode } from "../wire/sync_points.ts";
import { WARNING_OPTIONS, type WarningOptions } from "./session_warning.ts";
import type { SwitchoverAck } from "./switchover_ack.ts";

/** Time limits in milliseconds; what is left out has its default (`limits.ts`). */
export interface Timeouts {
  /** One connection attempt, and from the first to the last connection of a migration. 10 s. */
  readonly connectMs: number;
  /** A receiver until the first connection. 10 min. */
  readonly acceptMs: number;
  /** Between two packets or two pieces of the main stream, while no other connection moves a byte. 5 min. */
  readonly idleMs: number;
  /** Without a single byte in the middle of a packet, or with channels that take nothing. 30 s. */
  readonly stallMs: number;
}

/** Where the peer is, and how it is connected. */
export interface LinkOptions {
  /** `host:port`, `[v6]:port`, `unix:/path` or `unix-abstract:name`. */
  readonly endpoint: string;
  /**
   * Number of multifd channels, 1 to 255, equal on both sides. `"auto"` takes twice the processors
   * (2 to 16) on a sender and whatever connects on a receiver. Default 2, as in QEMU.
   */
  readonly channels?: number | "auto" | undefined;
  /** Compression method, equal on both sides; the level matters to the sender only. Default none. */
  readonly compression?: Compression | CompressionMethod | undefined;
  /** Encrypts all connections with this peer, which needs credentials that fit. Default: none are. */
  readonly tls?: TlsOptions | undefined;
}

/** How a session may end early. */
export interface LimitOptions {
  /** Time limits. */
  readonly timeouts?: Partial<Timeouts> | undefined;
  /** Cancels the session at any time; it ends within a second with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
}

/** Options that all sessions have. */
export interface SessionOptions extends LinkOptions, LimitOptions {
  /** VM uuid, equal on both sides; absent means all zero. A receiver may accept `"any"`. */
  readonly uuid?: string | undefined;
}

/** Of sessions that may carry device state over their channels. */
export interface DeviceStateOptions {
  /**
   * Allow device state beside compressed RAM, on both sides. QEMU does not; only peers of this
   * library may. Default false.
   */
  readonly deviceStateCompressed?: boolean | undefined;
}

/** Of sessions whose devices the caller names. */
export interface DeviceOptions extends DeviceStateOptions {
  /**
   * Devices whose state travels over the channels. A receiver must know all of them from the start;
   * a sender may register more.
   */
  readonly devices?: readonly DeviceDefinition[] | undefined;
}

/** Who finds zero pages: the channels, the main thread as before QEMU 9.0, or nobody. */
export type ZeroPageDetection = "multifd" | "legacy" | "none";

/** Options of whoever sends, whatever it sends. */
export interface SendingOptions extends SessionOptions {
  /** Default `multifd`. */
  readonly zeroPageDetection?: ZeroPageDetection | undefined;
  /**
   * Limit in bytes per second over all connections, the main one included; 0 (default) for none. A
   * {@linkcode BandwidthLimit} can be changed while the session runs, and shared by several.
   */
  readonly maxBandwidth?: number | BandwidthLimit | undefined;
  /** Machine type named in the stream. Default `multifd`. */
  readonly machine?: string | undefined;
  /** Wait for the receiver's confirmation. Default true; without it nothing proves arrival. */
  readonly returnPath?: boolean | undefined;
  /**
   * When channels synchronise. A receiver tells it from the stream; a QEMU goes by its machine type.
   * Default `round`, or with `state` as its source did.
   */
  readonly syncMode?: SyncMode | undefined;
  /**
   * The destination has capability switchover-ack: wait for its permission to enter the final phase
   * if it gives one without being asked, as machine types up to 11.0 do. `legacy`: wait whatever the
   * machine type is. Default false.
   */
  readonly switchoverAck?: SwitchoverAck | undefined;
}

/** Memory to send. */
export interface SourceOptions {
  /** What to send. The sender keeps the blocks alive; all have the same page size. */
  readonly blocks: readonly RamBlock[];
  /** Send a digest of every block at the end, for the receiver to compare. Default false. */
  readonly verify?: boolean | undefined;
}

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends SendingOptions, SourceOptions, DeviceOptions {
  /**
   * What a guest has beside RAM, captured by a receiver; sent as it is. Its machine and uuid are
   * taken unless others are given. Digests cannot be sent with it.
   */
  readonly state?: GuestState | undefined;
}

/** How `send()` repeats itself. */
export interface SendOptions {
  /** Rounds in all, default 1; from the second on only what has changed since is sent. */
  readonly rounds?: number | undefined;
  /** Pause before each further round in milliseconds, default 0. */
  readonly roundDelayMs?: number | undefined;
}

/** Names of {@linkcode SendOptions}. */
export const SEND_OPTIONS = {
  rounds: true,
  roundDelayMs: true,
} satisfies OptionNames<SendOptions>;

/** Options of whoever receives, whatever becomes of it. */
export interface ReceivingOptions extends SessionOptions {
  /** Page size when no blocks are given. Default 4096. */
  readonly pageSize?: number | undefined;
  /** Most bytes to allocate for announced blocks. Default 64 GiB. */
  readonly ramBytesMax?: number | undefined;
  /**
   * Most bytes that a sender can make this side hold, all together (`memory_budget.ts`). Default: room
   * for `ramBytesMax`, device queues, 32 MiB for each channel of zstd, and 1 GiB. Less: lower levels.
   */
  readonly heldBytesMax?: number | undefined;
  /** Touch allocated memory before the first page arrives. Default false. */
  readonly prefault?: boolean | undefined;
  /** Machine type the stream must name; absent accepts any. */
  readonly machine?: string | undefined;
  /**
   * The source has capability switchover-ack: permit its final phase at once if it waits for that
   * without having asked, as machine types up to 11.0 do. `legacy`: permit it whatever the machine
   * type is. Default false.
   */
  readonly switchoverAck?: SwitchoverAck | undefined;
}

/** Memory to receive into. */
export interface TargetOptions {
  /**
   * Memory to receive into, matched by id; the sender's list must be the same. Absent: what the
   * sender announces is allocated.
   */
  readonly blocks?: readonly RamBlock[] | undefined;
  /**
   * Insist on digests from the sender. They are compared whenever it sends them; this refuses a
   * migration without. Default false.
   */
  readonly verify?: boolean | undefined;
  /**
   * Keep what is not RAM, without understanding it, for {@linkcode Receiver.state}; needed for every
   * stream of a real guest. Default false: unknown devices are an error.
   */
  readonly capture?: boolean | undefined;
}

/** Options of {@linkcode listen}. */
export interface ListenOptions
  extends ReceivingOptions, TargetOptions, DeviceOptions, WarningOptions {
  /**
   * Runs after all data is in place and before the sender is told so; when it throws, both sides
   * fail. The place to write an image to disk.
   */
  readonly finalize?:
    | ((blocks: readonly RamBlock[], state: GuestState | undefined) => Promise<void> | void)
    | undefined;
}

/** Names of {@linkcode Timeouts}. */
export const TIMEOUT_NAMES = {
  connectMs: true,
  acceptMs: true,
  idleMs: true,
  stallMs: true,
} satisfies OptionNames<Timeouts>;

/** Names of {@linkcode LinkOptions}. */
export const LINK_OPTIONS = {
  endpoint: true,
  channels: true,
  compression: true,
  tls: true,
} satisfies OptionNames<LinkOptions>;

/** Names of {@linkcode LimitOptions}. */
export const LIMIT_OPTIONS = {
  timeouts: true,
  signal: true,
} satisfies OptionNames<LimitOptions>;

const SESSION_OPTIONS = {
  ...LINK_OPTIONS,
  ...LIMIT_OPTIONS,
  uuid: true,
} satisfies OptionNames<SessionOptions>;

/** Names of {@linkcode DeviceStateOptions}. */
export const DEVICE_STATE_OPTIONS = {
  deviceStateCompressed: true,
} satisfies OptionNames<DeviceStateOptions>;

const DEVICE_OPTIONS = {
  ...DEVICE_STATE_OPTIONS,
  devices: true,
} satisfies OptionNames<DeviceOptions>;

/** Names of {@linkcode SendingOptions}. */
export const SENDING_OPTIONS = {
  ...SESSION_OPTIONS,
  zeroPageDetection: true,
  maxBandwidth: true,
  machine: true,
  returnPath: true,
  syncMode: true,
  switchoverAck: true,
} satisfies OptionNames<SendingOptions>;

/** Names of {@linkcode SourceOptions}. */
export const SOURCE_OPTIONS = {
  blocks: true,
  verify: true,
} satisfies OptionNames<SourceOptions>;

/** Names of {@linkcode ConnectOptions}. */
export const CONNECT_OPTIONS = {
  ...SENDING_OPTIONS,
  ...SOURCE_OPTIONS,
  ...DEVICE_OPTIONS,
  state: true,
} satisfies OptionNames<ConnectOptions>;

/** Names of {@linkcode ReceivingOptions}. */
export const RECEIVING_OPTIONS = {
  ...SESSION_OPTIONS,
  pageSize: true,
  ramBytesMax: true,
  heldBytesMax: true,
  prefault: true,
  machine: true,
  switchoverAck: true,
} satisfies OptionNames<ReceivingOptions>;

/** Names of {@linkcode TargetOptions}. */
export const TARGET_OPTIONS = {
  blocks: true,
  verify: true,
  capture: true,
} satisfies OptionNames<TargetOptions>;

/** Names of {@linkcode ListenOptions}. */
export const LISTEN_OPTIONS = {
  ...RECEIVING_OPTIONS,
  ...TARGET_OPTIONS,
  ...DEVICE_OPTIONS,
  ...WARNING_OPTIONS,
  finalize: true,
} satisfies OptionNames<ListenOptions>;
