/**
 * What the name of a machine type tells about its streams.
 *
 * @module
 */

/** When channels synchronise: after each round, or after each section as machine types up to 8.0 do. */
export type SyncMode = "round" | "section";

/**
 * The sync mode a machine type uses by default. Types without a version, such as `microvm`, change
 * with QEMU's own version and count as current.
 */
export function machineSyncMode(machine: string): SyncMode {
  const version = /-(\d+)\.(\d+)$/.exec(machine);
  if (version === null) return "round";
  const [major, minor] = [Number(version[1]), Number(version[2])];
  return major < 8 || (major === 8 && minor === 0) ? "section" : "round";
}
