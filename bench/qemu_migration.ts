/**
 * One migration between two QEMU processes on this machine. The source is loaded from a snapshot
 * and stays paused, so every run moves the very same bytes and nothing but the transport works.
 *
 * @module
 */

import { rmSync } from "node:fs";
import type { CompressionMethod } from "../mod.ts";
import { Qemu, type QemuOptions } from "../test/qemu/qemu.ts";
import { COMPARABLE_METHODS, type SideMemory, type TransferRun } from "./contender.ts";
import { residentMemory, resetPeak } from "./cpu_time.ts";
import { readGuestMeta, type GuestMeta } from "./guest_meta.ts";
import { watchMachine } from "./idle_machine.ts";
import { imageFacts } from "./image_facts.ts";
import { choice, count, flag, runBenchmark, text } from "./settings.ts";

/** What to migrate, and how. */
export interface QemuMigrationOptions {
  readonly meta: GuestMeta;
  /** A mapped-ram migration file, made by guest_image.ts. */
  readonly snapshot: string;
  readonly method: CompressionMethod;
  /** 0: the plain protocol of one stream, without multifd. */
  readonly channels: number;
  readonly level: number;
  /** Default `multifd`, as in QEMU. */
  readonly zeroPageDetection?: "none" | "legacy" | "multifd" | undefined;
  /** Have the destination's RAM resident before the start. Default true. */
  readonly prealloc?: boolean | undefined;
  /** Wait for the destination's confirmation, within the time. Default false, as in QEMU. */
  readonly returnPath?: boolean | undefined;
  /** Also digest the destination's RAM, which is then a file in /dev/shm. */
  readonly verify?: boolean | undefined;
}

/** What it took; `seconds` is QEMU's own total-time. */
export interface QemuMigration extends TransferRun {
  /** From the command to the destination's word that all is loaded, device state included. */
  readonly confirmedSeconds: number;
}

const LOAD_TIMEOUT_MS = 120_000;
const MIGRATION_TIMEOUT_MS = 180_000;
const SETTLE_MS = 300; // both processes have just finished to start; their last threads come to rest
const NO_LIMIT = 2 ** 50; // bytes/s; 0 means the same, but QEMU 10 then computes with it

/**
 * Migrates once.
 *
 * @throws {QemuMigrationError} If QEMU could not.
 */
export async function qemuMigration(options: QemuMigrationOptions): Promise<QemuMigration> {
  const { verify = false } = options;
  using ramFile = verify ? sharedRamFile() : undefined;
  await using source = await Qemu.start({ ...machineOf(options), name: "source" });
  await using target = await startDestination(options, ramFile?.path);
  await source.setCapabilities({ "mapped-ram": true });
  await source.migrateIncoming(`file:${options.snapshot}`);
  await source.waitMigration(LOAD_TIMEOUT_MS);
  await source.setCapabilities({ "mapped-ram": false });
  await configure(source, options);
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0");
  await Bun.sleep(SETTLE_MS);
  return { ...(await measure(source, target, uri)), sha256: await ramFile?.sha256() };
}

/** Starts a QEMU that only has to be told where to listen. */
export async function startDestination(
  options: QemuMigrationOptions,
  ramFile: string | undefined,
): Promise<Qemu> {
  const prealloc = options.prealloc ?? true;
  const target = await Qemu.start({
    ...machineOf(options),
    name: "destination",
    ramFile,
    prealloc,
  });
  try {
    await configure(target, options);
    return target;
  } catch (error) {
    await target[Symbol.asyncDispose]();
    throw error;
  }
}

function machineOf({ meta }: QemuMigrationOptions): Omit<QemuOptions, "name"> {
  return {
    machine: meta.machine,
    memoryMib: meta.mib,
    incoming: "defer",
    paused: true,
    extraArgs: meta.boot_args,
  };
}

async function configure(vm: Qemu, options: QemuMigrationOptions): Promise<void> {
  const { method, channels, level, zeroPageDetection = "multifd" } = options;
  const multifd = channels > 0;
  await vm.setCapabilities({ multifd, "return-path": options.returnPath ?? false });
  await vm.setParameters({
    "max-bandwidth": NO_LIMIT,
    "zero-page-detection": multifd ? zeroPageDetection : "legacy",
  });
  if (!multifd) return;
  await vm.setParameters({ "multifd-channels": channels, "multifd-compression": method });
  if (method !== "none") await vm.setParameters({ [`multifd-${method}-level`]: level });
}

async function measure(source: Qemu, target: Qemu, uri: string): Promise<QemuMigration> {
  const measures = [measureSide(source), measureSide(target)];
  const watch = watchMachine();
  const startMs = performance.now();
  await source.migrate(uri);
  await Promise.all([source, target].map(async (vm) => vm.waitMigration(MIGRATION_TIMEOUT_MS)));
  const confirmedSeconds = (performance.now() - startMs) / 1000;
  const [sender, receiver] = measures.map((measured) => measured());
  const cpuSeconds = (sender?.cpuSeconds ?? 0) + (receiver?.cpuSeconds ?? 0);
  const { noisy } = watch(cpuSeconds);
  const { totalTimeMs, ram } = await source.queryMigrate();
  if (sender === undefined || receiver === undefined || totalTimeMs === undefined) {
    throw new Error("Cannot measure QEMU: no total-time, query-migrate must report it");
  }
  return {
    seconds: totalTimeMs / 1000,
    setUpSeconds: 0, // within QEMU's total-time
    setUpCpuSeconds: 0, // within the CPU seconds
    confirmedSeconds,
    cpuSecondsSender: sender.cpuSeconds,
    cpuSecondsReceiver: receiver.cpuSeconds,
    wireBytes: ram?.transferredBytes ?? 0,
    memorySender: sender.memory,
    memoryReceiver: receiver.memory,
    noisy,
  };
}

/** Starts to count what a QEMU uses; the result tells CPU seconds and memory since then. */
export function measureSide(vm: Qemu): () => { cpuSeconds: number; memory: SideMemory } {
  resetPeak(vm.pid);
  const cpuSeconds = vm.cpuSeconds();
  const { rssBytes } = residentMemory(vm.pid);
  return () => ({
    cpuSeconds: vm.cpuSeconds() - cpuSeconds,
    memory: grownMemory(vm, rssBytes),
  });
}

/** QEMU's resident RAM is not a round number: untouched pages are not there. Only growth is clear. */
function grownMemory(vm: Qemu, rssBeforeBytes: number): SideMemory {
  const { peakRssBytes } = residentMemory(vm.pid);
  return { peakRssBytes, extraBytes: peakRssBytes - rssBeforeBytes };
}

/** See {@link sharedRamFile}. */
export interface SharedRamFile extends Disposable {
  readonly path: string;
  sha256(): Promise<string>;
}

/** A place for a guest's RAM that can be digested; removed when disposed. */
export function sharedRamFile(): SharedRamFile {
  const path = `/dev/shm/multifd-bench-${process.pid}-${Date.now()}.ram`;
  return {
    path,
    sha256: async () => (await imageFacts(path)).sha256,
    [Symbol.dispose]: () => rmSync(path, { force: true }),
  };
}

if (import.meta.main) {
  const settings = {
    meta: text("", "how the guest was booted"),
    snapshot: text("", "mapped-ram file of the guest"),
    compression: choice(COMPARABLE_METHODS, "none", COMPARABLE_METHODS.join(", ")),
    channels: count(2, "0 for the plain protocol"),
    level: count(1, "of zlib and zstd"),
    verify: flag("also digest what arrived"),
  };
  await runBenchmark("qemu_migration", settings, async ({ meta, compression, ...rest }) => {
    const guest = await readGuestMeta(meta);
    const migration = await qemuMigration({ ...rest, meta: guest, method: compression });
    console.log(JSON.stringify(migration, undefined, 2));
  });
}
