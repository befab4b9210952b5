/**
 * This library as the source and a real QEMU as the destination: what a migration gains when only
 * one end is ours.
 *
 * @module
 */

import { BenchProcess, SETTLE_MS, type SideReport } from "./bench_process.ts";
import type { TransferOptions, TransferRun } from "./contender.ts";
import { watchMachine } from "./idle_machine.ts";
import { codecArguments } from "./ours_transfer.ts";
import {
  measureSide,
  sharedRamFile,
  startDestination,
  type QemuMigrationOptions,
} from "./qemu_migration.ts";

const TIMEOUT_MS = 180_000;

/**
 * Sends the snapshot's guest once; the clock runs until QEMU has confirmed it.
 *
 * @throws {Error} If a side fails or stalls.
 */
export async function transferToQemu(
  options: TransferOptions & QemuMigrationOptions,
): Promise<TransferRun> {
  const { snapshot, channels, verify } = options;
  using ramFile = verify ? sharedRamFile() : undefined;
  const destination = { ...options, returnPath: true };
  await using target = await startDestination(destination, ramFile?.path);
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0");
  const endpoint = uri.replace(/^tcp:/, "");
  const codec = [...codecArguments(options), "--channels", String(channels)];
  await using sending = new BenchProcess([
    "ours_sender.ts",
    ...codec,
    "--snapshot",
    snapshot,
    "--endpoint",
    endpoint,
  ]);
  await sending.next(TIMEOUT_MS);
  await Bun.sleep(SETTLE_MS);
  const measure = measureSide(target);
  const watch = watchMachine();
  await sending.say("go");
  const sent = await sending.next<SideReport>(TIMEOUT_MS);
  await target.waitMigration(TIMEOUT_MS);
  const received = measure();
  return {
    seconds: sent.seconds ?? 0,
    setUpSeconds: sent.setUpSeconds ?? 0,
    setUpCpuSeconds: sent.setUpCpuSeconds,
    cpuSecondsSender: sent.cpuSeconds,
    cpuSecondsReceiver: received.cpuSeconds,
    wireBytes: sent.wireBytes ?? 0,
    memorySender: sent.memory,
    memoryReceiver: received.memory,
    noisy: watch(sent.cpuSeconds + received.cpuSeconds).noisy,
    sha256: await ramFile?.sha256(),
  };
}
