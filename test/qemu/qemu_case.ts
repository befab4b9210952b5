/**
 * A test that needs a real QEMU with the tiny guest.
 *
 * @module
 */

import { test } from "bun:test";
import { takeBreakdowns } from "./qemu.ts";
import { qemuMissing, type QemuVersion } from "./qemu_versions.ts";
import { nasmAvailable } from "./tiny_guest.ts";

const TIMEOUT_MS = 240_000;
const ATTEMPTS_MAX = 3;

/**
 * Declares a test that is skipped where QEMU or nasm is missing, with a name that says which.
 *
 * QEMU 10.0.2 has races of its own where a migration fails: now and then it crashes or gets stuck
 * (docs/qemu.md). Such an attempt says nothing about us and is repeated; what QEMU does every time is
 * a failure all the same.
 *
 * @param timeoutMs Limit of the test. Default 240 s: it only ends what hangs, and machines may be busy.
 * @param versions The QEMUs that it needs. Default: the machine's own.
 */
export function qemuTest(
  name: string,
  body: () => Promise<void>,
  timeoutMs = TIMEOUT_MS,
  versions: readonly QemuVersion[] = ["10.0"],
): void {
  const missing =
    versions.map((version) => qemuMissing(version)).find((reason) => reason !== null) ??
    nasmAvailable();
  const title = missing === null ? name : `${name} (${missing})`;
  test.skipIf(missing !== null)(title, () => repeatedly(name, body), timeoutMs);
}

async function repeatedly(name: string, body: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    takeBreakdowns();
    try {
      await body();
      return;
    } catch (error) {
      const breakdowns = takeBreakdowns();
      if (breakdowns.length === 0 || attempt === ATTEMPTS_MAX) throw error;
      console.warn(`${name}: once more, since QEMU failed by itself: ${breakdowns.join(", ")}`);
    }
  }
}
