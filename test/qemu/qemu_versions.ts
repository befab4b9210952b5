/**
 * The QEMUs of several ages that a machine has: its own, and those that the set-up has unpacked.
 *
 * @module
 */
import { unpackedQemuPath } from "../setup/qemu_packages.ts";

/** `10.0` is the machine's own, 10.0 or later, or the one that `MULTIFD_QEMU` names. */
export type QemuVersion = "7.2" | "10.0" | "11.1";

/** The program of each QEMU, whether it is there or not. */
export const QEMU_BINARIES: Readonly<Record<QemuVersion, string>> = {
  "7.2": unpackedQemuPath("7.2"),
  "10.0": process.env["MULTIFD_QEMU"] ?? "qemu-system-x86_64",
  "11.1": unpackedQemuPath("11.1"),
};

// The machine's own need only be new enough for most tests.
const VERSION_MIN: Readonly<Record<QemuVersion, string>> = {
  "7.2": "7.2.0",
  "10.0": "9.0.0",
  "11.1": "11.1.0",
};

const ADVICE: Readonly<Record<QemuVersion, string>> = {
  "7.2": "needs Debian 12's own QEMU: bun test/setup/qemu_packages.ts unpacks it",
  "10.0":
    "needs QEMU 9 or later: Debian package qemu-system-x86, in Debian 12 from bookworm-backports",
  "11.1": "needs the QEMU of Debian sid: bun test/setup/qemu_packages.ts unpacks it",
};

const VERSION_TIMEOUT_MS = 10_000;
const known = new Map<QemuVersion, string | null>();

/**
 * Whether a QEMU can run here.
 *
 * @returns `null` if it can, or else what is missing, to be shown beside a skipped test
 */
export function qemuMissing(version: QemuVersion): string | null {
  let missing = known.get(version);
  if (missing === undefined) {
    missing = whyMissing(version);
    known.set(version, missing);
  }
  return missing;
}

function whyMissing(version: QemuVersion): string | null {
  const binary = QEMU_BINARIES[version];
  const advice = ADVICE[version];
  if (Bun.which(binary) === null) return `${binary} not found; ${advice}`;
  const { stdout } = Bun.spawnSync([binary, "--version"], { timeout: VERSION_TIMEOUT_MS });
  const [, found] = /version (\d+\.\d+\.\d+)/.exec(stdout.toString()) ?? [];
  if (found === undefined) return `${binary} does not run; ${advice}`;
  if (Bun.semver.order(found, VERSION_MIN[version]) >= 0) return null;
  return `${binary} is ${found}; ${advice}`;
}
