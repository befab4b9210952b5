/**
 * What the name of a machine type tells about its streams.
 *
 * @module
 */

import type { SyncMode } from "./sync_points.ts";

/** What a stream without a guest names. */
export const MACHINE_DEFAULT = "multifd";

/**
 * The sync mode a machine type uses by default. Types without a version, such as `microvm`, change
 * with QEMU's own version and count as current.
 */
export function machineSyncMode(machine: string): SyncMode {
  return isUpTo(machine, 8, 0) ? "section" : "round";
}

/**
 * Whether a destination with capability switchover-ack sends an acknowledgement that no device has
 * asked for, and its source waits for one. Types up to 11.0 do so; in later ones, and in those
 * without a version, both sides count the devices that ask, and there may be none.
 */
export function hasUnaskedSwitchoverAck(machine: string): boolean {
  return isUpTo(machine, 11, 0);
}

/**
 * Whether a destination with capability postcopy-preempt waits for the connection for requested pages
 * before it reads the main one; later types take it when the guest is about to move.
 */
export function wantsPreemptFirst(machine: string): boolean {
  return isUpTo(machine, 7, 2);
}

function isUpTo(machine: string, lastMajor: number, lastMinor: number): boolean {
  const version = /-(\d+)\.(\d+)$/.exec(machine);
  if (version === null) return false;
  const [major, minor] = [Number(version[1]), Number(version[2])];
  return major < lastMajor || (major === lastMajor && minor <= lastMinor);
}
