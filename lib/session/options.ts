/**
 * Options of a session: what a user may set, the defaults, and the checked form that travels to
 * worker threads.
 *
 * @module
 */
import type { CompressionMethod } from "../codec/methods.ts";
import {
  resolveCompression,
  type CodecDirection,
  type Compression,
  type ResolvedCompression,
} from "../codec/registry.ts";
import {
  loadConfigs,
  saveConfig,
  type DeviceDefinition,
  type DeviceTransport,
  type LoadConfig,
  type SaveConfig,
} from "../device/device.ts";
import { RECEIVE_BYTES_DEFAULT, TIMEOUTS_DEFAULT } from "../limits.ts";
import type { SharedRamBlock, RamBlock } from "../memory/ram_block.ts";
import { checkPageSize } from "../memory/ram_block.ts";
import { parseEndpoint, type Endpoint } from "../net/endpoint.ts";
import { bandwidthOf, type BandwidthLimit } from "../sync/bandwidth_limit.ts";
import { machineSyncMode } from "../wire/machine_type.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { SyncMode } from "../wire/sync_points.ts";
import { parseUuid } from "../wire/uuid.ts";
import { channelsOf, senderChannels } from "./channel_count.ts";
import { planMemory } from "./memory_budget.ts";
import { checkSwitchoverAck, expectsSwitchoverAck, type SwitchoverAck } from "./switchover_ack.ts";
import type { WarningOptions } from "./session_warning.ts";

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

/** Options that both sides have. */
export interface SessionOptions {
  /** `host:port`, `[v6]:port`, `unix:/path` or `unix-abstract:name`. */
  readonly endpoint: string;
  /**
   * Number of multifd channels, 1 to 255, equal on both sides. `"auto"` takes twice the processors
   * (2 to 16) on a sender and whatever connects on a receiver. Default 2, as in QEMU.
   */
  readonly channels?: number | "auto" | undefined;
  /** Compression method, equal on both sides; the level matters to the sender only. Default none. */
  readonly compression?: Compression | CompressionMethod | undefined;
  /** VM uuid, equal on both sides; absent means all zero. A receiver may accept `"any"`. */
  readonly uuid?: string | undefined;
  /** Time limits. */
  readonly timeouts?: Partial<Timeouts> | undefined;
  /**
   * Devices whose state travels over the channels. A receiver must know all of them from the start;
   * a sender may register more.
   */
  readonly devices?: readonly DeviceDefinition[] | undefined;
  /**
   * Allow device state beside compressed RAM, on both sides. QEMU does not; only peers of this
   * library may. Default false.
   */
  readonly deviceStateCompressed?: boolean | undefined;
  /** Cancels the session at any time; it ends within a second with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
}

/** Who finds zero pages: the channels, the main thread as before QEMU 9.0, or nobody. */
export type ZeroPageDetection = "multifd" | "legacy" | "none";

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends SessionOptions {
  /** What to send. The sender keeps the blocks alive; all have the same page size. */
  readonly blocks: readonly RamBlock[];
  /** Default `multifd`. */
  readonly zeroPageDetection?: ZeroPageDetection | undefined;
  /**
   * Limit in bytes per second over all connections, the main one included; 0 (default) for none. A
   * {@linkcode BandwidthLimit} can be changed while the session runs, and shared by several.
   */
  readonly maxBandwidth?: number | BandwidthLimit | undefined;
  /** Send a digest of every block at the end, for the receiver to compare. Default false. */
  readonly verify?: boolean | undefined;
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
   * What a guest has beside RAM, captured by a receiver; sent as it is. Its machine and uuid are
   * taken unless others are given. Digests cannot be sent with it.
   */
  readonly state?: GuestState | undefined;
  /**
   * The destination has capability switchover-ack: wait for its permission to enter the final phase
   * if it gives one without being asked, as machine types up to 11.0 do. `legacy`: wait whatever the
   * machine type is. Default false.
   */
  readonly switchoverAck?: SwitchoverAck | undefined;
}

/** Options of {@linkcode listen}. */
export interface ListenOptions extends SessionOptions, WarningOptions {
  /**
   * Memory to receive into, matched by id; the sender's list must be the same. Absent: what the
   * sender announces is allocated.
   */
  readonly blocks?: readonly RamBlock[] | undefined;
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
  /**
   * Insist on digests from the sender. They are compared whenever it sends them; this refuses a
   * migration without. Default false.
   */
  readonly verify?: boolean | undefined;
  /** Machine type the stream must name; absent accepts any. */
  readonly machine?: string | undefined;
  /**
   * Runs after all data is in place and before the sender is told so; when it throws, both sides
   * fail. The place to write an image to disk.
   */
  readonly finalize?:
    | ((blocks: readonly RamBlock[], state: GuestState | undefined) => Promise<void> | void)
    | undefined;
  /**
   * Keep what is not RAM, without understanding it, for {@linkcode Receiver.state}; needed for every
   * stream of a real guest. Default false: unknown devices are an error.
   */
  readonly capture?: boolean | undefined;
  /**
   * The source has capability switchover-ack: permit its final phase at once if it waits for that
   * without having asked, as machine types up to 11.0 do. `legacy`: permit it whatever the machine
   * type is. Default false.
   */
  readonly switchoverAck?: SwitchoverAck | undefined;
}

/** What both sides' threads need; cloneable. */
export interface SessionConfig {
  readonly endpoint: Endpoint;
  readonly compression: ResolvedCompression;
  readonly uuid: Uint8Array;
  readonly pageSize: number;
  readonly timeouts: Timeouts;
}

/** Checked options of a sender; cloneable. */
export interface SenderConfig extends SessionConfig {
  readonly devices: readonly SaveConfig[];
  readonly deviceTransport: DeviceTransport;
  readonly channels: number;
  readonly blocks: readonly SharedRamBlock[];
  readonly zeroPageDetection: ZeroPageDetection;
  /** Of the limit on bandwidth; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
  readonly verify: boolean;
  readonly machine: string;
  readonly returnPath: boolean;
  readonly state: GuestState | undefined;
  /** Whether to wait for one acknowledgement. */
  readonly switchoverAck: boolean;
  readonly syncMode: SyncMode;
}

/** Checked options of a receiver; cloneable. */
export interface ReceiverConfig extends SessionConfig {
  readonly devices: readonly LoadConfig[];
  /** Undefined: as many as connect. */
  readonly channels: number | undefined;
  readonly blocks: readonly SharedRamBlock[] | undefined;
  readonly ramBytesMax: number;
  /** What may be held beside windows and queues; undefined for the default. */
  readonly heldBytesLeft: number | undefined;
  readonly prefault: boolean;
  readonly verify: boolean;
  readonly machine: string | undefined;
  readonly finalize: boolean;
  readonly requireReturnPath: boolean;
  /** Whether the connection stays open after the migration, for checkpoints. */
  readonly checkpoints?: boolean | undefined;
  readonly capture: boolean;
  readonly switchoverAck: SwitchoverAck;
  /** Whether `uuid` says nothing and any is accepted. */
  readonly anyUuid: boolean;
}

const MACHINE_DEFAULT = "multifd";

/**
 * Checks a sender's options; the endpoint must be numeric or a Unix socket.
 *
 * @throws {RangeError | TypeError} for options that cannot work.
 */
export function senderConfig(options: ConnectOptions): SenderConfig {
  const { blocks, state, verify = false } = options;
  const pageSize = commonPageSize(blocks);
  if (verify && state !== undefined) {
    throw new TypeError("Cannot send digests with a guest's state: QEMU does not know them");
  }
  const { returnPath = true, switchoverAck = false } = options;
  checkSwitchoverAck(switchoverAck);
  if (switchoverAck !== false && !returnPath) {
    throw new TypeError("Cannot wait for permission to switch over: there is no return path");
  }
  const machine = options.machine ?? state?.machine ?? MACHINE_DEFAULT;
  const session = sessionConfig(options, "encode", pageSize);
  const switchoverStart = state?.switchoverStart ?? true;
  const deviceTransport = { ...transportOf(options, session), switchoverStart };
  return {
    ...session,
    devices: (options.devices ?? []).map((device) => saveConfig(device, deviceTransport)),
    deviceTransport,
    uuid: options.uuid === undefined ? (state?.uuid ?? session.uuid) : session.uuid,
    channels: senderChannels(options.channels),
    blocks: blocks.map((block) => block.share()),
    zeroPageDetection: oneOf("zero-page detection", options.zeroPageDetection ?? "multifd", [
      "multifd",
      "legacy",
      "none",
    ]),
    bandwidth: bandwidthOf(options.maxBandwidth),
    verify,
    machine,
    returnPath,
    state,
    switchoverAck: expectsSwitchoverAck(switchoverAck, machine),
    syncMode: oneOf("sync mode", options.syncMode ?? guestSyncMode(state), ["round", "section"]),
  };
}

/**
 * Checks a receiver's options; the endpoint must be numeric or a Unix socket.
 *
 * @throws {RangeError | TypeError} for options that cannot work.
 */
export function receiverConfig(options: ListenOptions): ReceiverConfig {
  const { blocks, ramBytesMax = RECEIVE_BYTES_DEFAULT } = options;
  const pageSize = blocks === undefined ? (options.pageSize ?? 4096) : commonPageSize(blocks);
  checkPageSize(pageSize);
  const readOnly = blocks?.find(({ writable }) => !writable);
  if (readOnly !== undefined) {
    throw new TypeError(
      `Cannot receive into RAM block ${readOnly.idstr}: it is mapped for reading, must be writable`,
    );
  }
  if (!(ramBytesMax > 0)) {
    throw new RangeError(`Cannot limit RAM to ${ramBytesMax} bytes: must be positive`);
  }
  const { switchoverAck = false } = options;
  checkSwitchoverAck(switchoverAck);
  const anyUuid = options.uuid === "any";
  const session = sessionConfig(
    anyUuid ? { ...options, uuid: undefined } : options,
    "decode",
    pageSize,
  );
  const channels = channelsOf(options.channels);
  const devices = loadConfigs(options.devices ?? [], transportOf(options, session));
  const { windowBits, leftBytes } = planMemory({
    heldBytesMax: options.heldBytesMax,
    method: session.compression.method,
    channels,
    queueBytes: devices.reduce((sum, { queue }) => sum + queue.queuedBytesMax, 0),
  });
  return {
    ...session,
    compression: { ...session.compression, windowBits },
    devices,
    channels,
    blocks: blocks?.map(lend),
    ramBytesMax,
    heldBytesLeft: leftBytes,
    prefault: options.prefault ?? false,
    verify: options.verify ?? false,
    machine: options.machine,
    finalize: options.finalize !== undefined,
    requireReturnPath: options.requireReturnPath ?? false,
    capture: options.capture ?? false,
    switchoverAck,
    anyUuid,
  };
}

/** How the destination of a guest synchronises most likely: as its source did, else by machine type. */
function guestSyncMode(state: GuestState | undefined): SyncMode {
  if (state === undefined) return "round";
  return state.syncMode ?? machineSyncMode(state.machine);
}

/** Shares a block with threads that fill it; the next transfer finds it used. */
function lend(block: RamBlock): SharedRamBlock {
  const shared = block.share();
  block.markWritten();
  return shared;
}

/** Time limits with defaults filled in. */
export function resolveTimeouts(timeouts: Partial<Timeouts> = {}): Timeouts {
  const resolved = { ...TIMEOUTS_DEFAULT, ...timeouts };
  for (const [name, value] of Object.entries(resolved)) {
    if (!(value > 0))
      throw new RangeError(`Cannot use timeout ${name} of ${value} ms: must be positive`);
  }
  return resolved;
}

/** Checks what both sides have; the endpoint must be numeric or a Unix socket. */
export function sessionConfig(
  options: SessionOptions,
  direction: CodecDirection,
  pageSize: number,
): SessionConfig {
  return {
    endpoint: parseEndpoint(options.endpoint),
    compression: resolveCompression(options.compression, direction, pageSize),
    uuid: parseUuid(options.uuid),
    pageSize,
    timeouts: resolveTimeouts(options.timeouts),
  };
}

function transportOf(options: SessionOptions, session: SessionConfig): DeviceTransport {
  const { deviceStateCompressed: compressed = false } = options;
  return { method: session.compression.method, compressed, switchoverStart: true };
}

function commonPageSize(blocks: readonly RamBlock[]): number {
  const [first] = blocks;
  if (first === undefined)
    throw new RangeError("Cannot start: there is no RAM block, at least 1 is needed");
  const names = new Set(blocks.map(({ idstr }) => idstr));
  if (names.size < blocks.length) {
    throw new RangeError("Cannot start: two RAM blocks have the same id, ids must be unique");
  }
  if (blocks.some(({ pageSize }) => pageSize !== first.pageSize)) {
    throw new RangeError("Cannot start: RAM blocks have different page sizes, must have one");
  }
  return first.pageSize;
}

function oneOf<Name extends string>(what: string, value: Name, allowed: readonly Name[]): Name {
  if (!allowed.includes(value)) {
    throw new RangeError(`Cannot use ${what} ${value}: must be one of ${allowed.join(", ")}`);
  }
  return value;
}
