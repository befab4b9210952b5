/**
 * A test that needs a real QEMU with the tiny guest.
 *
 * @module
 */

import { test } from "bun:test";
import { qemuAvailable } from "./qemu.ts";
import { nasmAvailable } from "./tiny_guest.ts";

const TIMEOUT_MS = 120_000;

/**
 * Declares a test that is skipped where QEMU or nasm is missing, with a name that says which.
 *
 * @param timeoutMs Limit of the test. Default 120 s: it only ends what hangs, and machines may be busy.
 */
export function qemuTest(name: string, body: () => Promise<void>, timeoutMs = TIMEOUT_MS): void {
  const missing = qemuAvailable() ?? nasmAvailable();
  const title = missing === null ? name : `${name} (${missing})`;
  test.skipIf(missing !== null)(title, body, timeoutMs);
}
