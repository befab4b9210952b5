/**
 * Options of a session in their checked form, which travels to worker threads.
 *
 * @module
 */
import {
  resolveCompression,
  type CodecDirection,
  type ResolvedCompression,
} from "../codec/registry.ts";
import {
  loadConfigs,
  saveConfig,
  type DeviceTransport,
  type LoadConfig,
  type SaveConfig,
} from "../device/device.ts";
import { PAGE_SIZE_DEFAULT, RECEIVE_BYTES_DEFAULT, TIMEOUTS_DEFAULT } from "../limits.ts";
import { commonPageSize } from "../memory/block_list.ts";
import type { SharedRamBlock, RamBlock } from "../memory/ram_block.ts";
import { checkPageSize } from "../memory/ram_block_options.ts";
import { parseEndpoint, type Endpoint } from "../net/endpoint.ts";
import { tlsConfig, type TlsConfig } from "../net/tls_options.ts";
import { checkOptionNames } from "../option_names.ts";
import { bandwidthOf } from "../sync/bandwidth_limit.ts";
import { MACHINE_DEFAULT, machineSyncMode } from "../wire/machine_type.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { SyncMode } from "../wire/sync_points.ts";
import { parseUuid } from "../wire/uuid.ts";
import {
  SEND_OPTIONS,
  TIMEOUT_NAMES,
  type ConnectOptions,
  type DeviceStateOptions,
  type ListenOptions,
  type SendOptions,
  type SessionOptions,
  type Timeouts,
  type ZeroPageDetection,
} from "./options.ts";
import { channelsOf, senderChannels } from "./channel_count.ts";
import { planMemory } from "./memory_budget.ts";
import { checkSwitchoverAck, expectsSwitchoverAck, type SwitchoverAck } from "./switchover_ack.ts";

/** What both sides' threads need; cloneable. */
export interface SessionConfig {
  readonly endpoint: Endpoint;
  readonly tls: TlsConfig | undefined;
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
  readonly capture: boolean;
  readonly switchoverAck: SwitchoverAck;
  /** Whether `uuid` says nothing and any is accepted. */
  readonly anyUuid: boolean;
}

/**
 * Checks a sender's options.
 *
 * @throws {RangeError | TypeError} for options that cannot work.
 */
export function senderConfig(options: ConnectOptions): SenderConfig {
  const { blocks, state, verify = false } = options;
  const { pageSize } = commonPageSize("Cannot start", blocks);
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
 * Checks a receiver's options.
 *
 * @throws {RangeError | TypeError} for options that cannot work.
 */
export function receiverConfig(options: ListenOptions): ReceiverConfig {
  const { blocks, ramBytesMax = RECEIVE_BYTES_DEFAULT } = options;
  const { pageSize = PAGE_SIZE_DEFAULT } =
    blocks === undefined ? options : commonPageSize("Cannot start", blocks);
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

/**
 * Checks how often everything is sent, and fills in the defaults.
 *
 * @throws {RangeError | TypeError} for what cannot be.
 */
export function sendRounds(options: SendOptions): { rounds: number; roundDelayMs: number } {
  checkOptionNames(SEND_OPTIONS, options);
  const { rounds = 1, roundDelayMs = 0 } = options;
  if (!Number.isInteger(rounds) || rounds < 1 || !(roundDelayMs >= 0)) {
    throw new RangeError(
      `Cannot send ${rounds} rounds ${roundDelayMs} ms apart: must be 1 or more, 0 or more`,
    );
  }
  return { rounds, roundDelayMs };
}

/** Time limits with defaults filled in. */
function resolveTimeouts(timeouts: Partial<Timeouts> = {}): Timeouts {
  checkOptionNames(TIMEOUT_NAMES, timeouts, "timeouts");
  const resolved = { ...TIMEOUTS_DEFAULT, ...timeouts };
  for (const [name, value] of Object.entries(resolved)) {
    if (!(value > 0))
      throw new RangeError(`Cannot use timeout ${name} of ${value} ms: must be positive`);
  }
  return resolved;
}

/** Checks what both sides have. */
export function sessionConfig(
  options: SessionOptions,
  direction: CodecDirection,
  pageSize: number,
): SessionConfig {
  checkPageSize(pageSize);
  const endpoint = parseEndpoint(options.endpoint);
  return {
    endpoint,
    tls: tlsConfig(options.tls, endpoint),
    compression: resolveCompression(options.compression, direction, pageSize),
    uuid: parseUuid(options.uuid),
    pageSize,
    timeouts: resolveTimeouts(options.timeouts),
  };
}

function transportOf(options: DeviceStateOptions, session: SessionConfig): DeviceTransport {
  const { deviceStateCompressed: compressed = false } = options;
  return { method: session.compression.method, compressed, switchoverStart: true };
}

function oneOf<Name extends string>(what: string, value: Name, allowed: readonly Name[]): Name {
  if (!allowed.includes(value)) {
    throw new RangeError(`Cannot use ${what} ${value}: must be one of ${allowed.join(", ")}`);
  }
  return value;
}
