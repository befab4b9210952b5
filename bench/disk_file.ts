/**
 * What a disk does with plain files, outside any contender: its speed as dd shows it, and making
 * sure that a file is read from it and not from memory.
 *
 * @module
 */

import { runCommand } from "../test/kit/subprocess.ts";

const DD_TIMEOUT_MS = 180_000;
const PIECE_BYTES = 1 << 20; // as large as the channels' own pieces

/** Waits until a file is on its device; seconds that took. */
export async function syncFile(path: string): Promise<number> {
  const startMs = performance.now();
  await dd([`of=${path}`, "conv=notrunc,fsync", "count=0"]);
  return (performance.now() - startMs) / 1000;
}

/** Takes a synced file out of the page cache. */
export async function dropFile(path: string): Promise<void> {
  await dd([`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]);
}

/** Copies `from` to `path` by dd; seconds without and of the sync. */
export async function writeByDd(
  from: string,
  path: string,
  direct: boolean,
): Promise<{ readonly seconds: number; readonly syncSeconds: number }> {
  const flags = direct ? ["oflag=direct"] : [];
  const startMs = performance.now();
  await dd([`if=${from}`, `of=${path}`, `bs=${PIECE_BYTES}`, ...flags]);
  const seconds = (performance.now() - startMs) / 1000;
  return { seconds, syncSeconds: await syncFile(path) };
}

/** Reads a file by dd; seconds. */
export async function readByDd(path: string, direct: boolean): Promise<number> {
  const flags = direct ? ["iflag=direct"] : [];
  const startMs = performance.now();
  await dd([`if=${path}`, "of=/dev/null", `bs=${PIECE_BYTES}`, ...flags]);
  return (performance.now() - startMs) / 1000;
}

async function dd(operands: readonly string[]): Promise<void> {
  const command = ["dd", "status=none", ...operands];
  const { status, stderr } = await runCommand(command, { timeoutMs: DD_TIMEOUT_MS });
  if (status !== 0) throw new Error(`Cannot run dd ${operands.join(" ")}: ${stderr.trim()}`);
}
