/**
 * QEMU's part of the snapshot benchmark: the same guest saved to a mapped-ram file and restored from
 * it, by as many multifd channels.
 *
 * @module
 */

import { Qemu } from "../test/qemu/qemu.ts";
import { residentMemory, resetPeak } from "./cpu_time.ts";
import type { GuestMeta } from "./guest_meta.ts";
import { watchMachine } from "./idle_machine.ts";
import type { SnapshotRun } from "./snapshot_run.ts";

const LIMIT_MS = 180_000;
const SETTLE_MS = 300; // both processes have just finished to start; their last threads come to rest
const NO_LIMIT = 2 ** 50; // bytes/s; 0 means the same, but QEMU 10 then computes with it

/** What to save or restore, and how. */
export interface QemuSnapshotOptions {
  readonly meta: GuestMeta;
  /** File the guest comes from when it is to be saved. */
  readonly image: string;
  /** File to write or read. */
  readonly file: string;
  readonly channels: number;
  readonly direct: boolean;
}

/**
 * Saves a stopped guest. The clock is QEMU's own total-time; closing the file, which waits for the
 * device, comes after it and counts as set-up.
 */
export async function saveByQemu(options: QemuSnapshotOptions): Promise<SnapshotRun> {
  await using vm = await start(options.meta, false);
  await vm.setCapabilities({ "mapped-ram": true });
  await vm.migrateIncoming(`file:${options.image}`);
  await vm.waitMigration(LIMIT_MS);
  await configure(vm, options);
  await Bun.sleep(SETTLE_MS);
  return await measure(vm, async () => {
    await vm.migrate(`file:${options.file}`);
    await vm.waitMigration(LIMIT_MS);
    const { totalTimeMs } = await vm.queryMigrate();
    if (totalTimeMs === undefined) throw new Error("Cannot measure QEMU: it reports no total-time");
    return totalTimeMs / 1000;
  });
}

/** Restores a guest; the clock runs from the command to QEMU's word that it is done. */
export async function restoreByQemu(options: QemuSnapshotOptions): Promise<SnapshotRun> {
  await using vm = await start(options.meta, true);
  await configure(vm, options);
  await Bun.sleep(SETTLE_MS);
  return await measure(vm, async () => {
    await vm.migrateIncoming(`file:${options.file}`);
    await vm.waitMigration(LIMIT_MS);
    return undefined;
  });
}

/** @param work Returns seconds, if they are others than those that pass. */
async function measure(vm: Qemu, work: () => Promise<number | undefined>): Promise<SnapshotRun> {
  resetPeak(vm.pid);
  const cpuBefore = vm.cpuSeconds();
  const { rssBytes } = residentMemory(vm.pid);
  const watch = watchMachine();
  const startMs = performance.now();
  const reported = await work();
  const wholeSeconds = (performance.now() - startMs) / 1000;
  const seconds = reported ?? wholeSeconds;
  const cpuSeconds = vm.cpuSeconds() - cpuBefore;
  const disturbance = watch(cpuSeconds);
  const extraBytes = residentMemory(vm.pid).peakRssBytes - rssBytes;
  const setUpSeconds = wholeSeconds - seconds;
  return { seconds, setUpSeconds, cpuSeconds, extraBytes, noisy: disturbance.noisy };
}

function start(meta: GuestMeta, prealloc: boolean): Promise<Qemu> {
  return Qemu.start({
    name: prealloc ? "destination" : "source",
    machine: meta.machine,
    memoryMib: meta.mib,
    incoming: "defer",
    paused: true,
    prealloc,
    extraArgs: meta.boot_args,
  });
}

async function configure(vm: Qemu, options: QemuSnapshotOptions): Promise<void> {
  await vm.setCapabilities({ "mapped-ram": true, multifd: true });
  await vm.setParameters({
    "multifd-channels": options.channels,
    "direct-io": options.direct,
    "max-bandwidth": NO_LIMIT,
  });
}
