/**
 * Options of a relay: what a user may set, and the checked form that travels to worker threads.
 *
 * @module
 */
import { withAddress } from "../session/address.ts";
import {
  LIMIT_OPTIONS,
  LINK_OPTIONS,
  type LimitOptions,
  type LinkOptions,
} from "../session/options.ts";
import { sessionConfig, type SessionConfig } from "../session/session_config.ts";
import { PAGE_SIZE_DEFAULT, RELAY_HELD_BYTES } from "../limits.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { WARNING_OPTIONS, type WarningOptions } from "../session/session_warning.ts";
import { bandwidthOf, type BandwidthLimit } from "../sync/bandwidth_limit.ts";
import { channelsOf, senderChannels } from "../session/channel_count.ts";
import { planMemory } from "../session/memory_budget.ts";

/**
 * One end of a relay; channels and compression are those of the QEMU there. Channels `"auto"` takes
 * what connects on the source's end.
 */
export type RelayEnd = LinkOptions;

/** Options of {@linkcode relay}. */
export interface RelayOptions extends WarningOptions, LimitOptions {
  /** Where the source connects to. */
  readonly listen: RelayEnd;
  /** Where the destination waits. */
  readonly connect: RelayEnd;
  /** uuid that the destination has; absent: the source's own. */
  readonly uuid?: string | undefined;
  /** Page size of the guest in bytes. Default 4096. */
  readonly pageSize?: number | undefined;
  /** Limit towards the destination in bytes per second, 0 (default) for none; as in `connect()`. */
  readonly maxBandwidth?: number | BandwidthLimit | undefined;
  /**
   * Most bytes that the source can make the relay hold: windows of zstd, and 64 MiB of its main
   * stream. Default: a window of 32 MiB for each of its channels, and those. With less, windows become
   * smaller and so the levels of zstd that are taken.
   */
  readonly heldBytesMax?: number | undefined;
}

const RELAY_OPTIONS = {
  ...WARNING_OPTIONS,
  ...LIMIT_OPTIONS,
  listen: true,
  connect: true,
  uuid: true,
  pageSize: true,
  maxBandwidth: true,
  heldBytesMax: true,
} satisfies OptionNames<RelayOptions>;

/** Checked options of a relay; cloneable. */
export interface RelayConfig {
  readonly incoming: SessionConfig;
  /** Undefined: as many as connect. */
  readonly incomingChannels: number | undefined;
  readonly outgoing: SessionConfig;
  readonly outgoingChannels: number;
  /** Whether the destination's uuid is the source's own. */
  readonly keepUuid: boolean;
  readonly requireReturnPath: boolean;
  /** Of the limit on bandwidth; undefined for none. */
  readonly bandwidth: SharedArrayBuffer | undefined;
}

/**
 * Checks a relay's options and resolves its endpoints.
 *
 * @throws {RangeError | TypeError} for options that cannot work, {SystemError} for an unknown host.
 */
export async function relayConfig(options: RelayOptions): Promise<RelayConfig> {
  checkOptionNames(RELAY_OPTIONS, options);
  const { listen, connect, uuid, timeouts, pageSize = PAGE_SIZE_DEFAULT } = options;
  checkOptionNames(LINK_OPTIONS, listen, "listen");
  checkOptionNames(LINK_OPTIONS, connect, "connect");
  const incoming = sessionConfig({ ...listen, timeouts }, "decode", pageSize);
  const outgoing = sessionConfig({ ...connect, timeouts, uuid }, "encode", pageSize);
  const incomingChannels = channelsOf(listen.channels);
  const { windowBits } = planMemory({
    heldBytesMax: options.heldBytesMax,
    method: incoming.compression.method,
    channels: incomingChannels,
    queueBytes: RELAY_HELD_BYTES,
  });
  return {
    incoming: await withAddress({
      ...incoming,
      compression: { ...incoming.compression, windowBits },
    }),
    incomingChannels,
    outgoing: await withAddress(outgoing),
    outgoingChannels: senderChannels(connect.channels),
    keepUuid: uuid === undefined,
    requireReturnPath: options.requireReturnPath ?? false,
    bandwidth: bandwidthOf(options.maxBandwidth),
  };
}
