/**
 * QEMU as a contender: one migration between two processes on this machine, and the same guest saved
 * to a snapshot and restored from it. The source is loaded from a snapshot and stays paused, so every
 * run moves the very same bytes and nothing but the transport works.
 *
 * @module
 */

import { rmSync } from "node:fs";
import type { CompressionMethod } from "../mod.ts";
import type { JsonObject } from "../test/qemu/qmp.ts";
import { Qemu } from "../test/qemu/qemu.ts";
import { SETTLE_MS, transferRun, type SideReport } from "./bench_process.ts";
import type { SnapshotRun, TlsFolders, TransferRun } from "./contender.ts";
import { residentMemory, resetPeak } from "./cpu_time.ts";
import type { GuestMeta } from "./guest_image.ts";
import { watchMachine } from "./idle_machine.ts";
import { imageFacts } from "./image_facts.ts";

/** What to migrate, and how. */
export interface QemuMigrationOptions {
  readonly meta: GuestMeta;
  /** A snapshot, made by guest_image.ts. */
  readonly snapshot: string;
  readonly compression: CompressionMethod;
  readonly channels: number;
  readonly level: number;
  /** Undefined: not encrypted. */
  readonly tls?: TlsFolders | undefined;
  /** Also digest the destination's RAM, which is then a file in /dev/shm. */
  readonly verify: boolean;
}

/** What to save or restore, and how. */
export interface QemuSnapshotOptions {
  readonly meta: GuestMeta;
  /** File the guest comes from when it is to be saved. */
  readonly image: string;
  /** File to write or read. */
  readonly file: string;
  readonly channels: number;
  readonly directIo: boolean;
}

/** Limit of a migration, loading a snapshot included. */
export const MIGRATION_TIMEOUT_MS = 180_000;
const NO_LIMIT = 2 ** 50; // bytes/s; 0 means the same, but QEMU 10 then computes with it

/**
 * Migrates once; the clock is QEMU's own total-time.
 *
 * @throws {QemuMigrationError} If QEMU could not.
 */
export async function qemuMigration(options: QemuMigrationOptions): Promise<TransferRun> {
  using ramFile = options.verify ? sharedRamFile() : undefined;
  await using source = await loadedSource(options.meta, options.snapshot, options.tls);
  await configureMigration(source, options, false);
  await using target = await startDestination(options, false, ramFile?.path);
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0");
  await Bun.sleep(SETTLE_MS);
  const measures = [measureSide(source), measureSide(target)] as const;
  const watch = watchMachine();
  await source.migrate(uri);
  await Promise.all([source, target].map(async (vm) => vm.waitMigration(MIGRATION_TIMEOUT_MS)));
  const [sent, received] = [measures[0](), measures[1]()];
  const { noisy } = watch(sent.cpuSeconds + received.cpuSeconds);
  const seconds = await totalSeconds(source);
  const { ram } = await source.queryMigrate();
  const run = transferRun({ ...sent, seconds, wireBytes: ram?.transferredBytes }, received);
  return { ...run, noisy, sha256: await ramFile?.sha256() };
}

/** Starts a QEMU that only has to be told where to listen, with all its RAM resident. */
export async function startDestination(
  options: QemuMigrationOptions,
  returnPath: boolean,
  ramFile: string | undefined,
): Promise<Qemu> {
  const target = await start(options.meta, "destination", ramFile, options.tls);
  try {
    await configureMigration(target, options, returnPath);
    return target;
  } catch (error) {
    await target[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Saves a stopped guest. The clock is QEMU's own total-time; closing the file, which waits for the
 * device, comes after it and counts as set-up.
 */
export async function saveByQemu(options: QemuSnapshotOptions): Promise<SnapshotRun> {
  await using vm = await loadedSource(options.meta, options.image);
  await configureSnapshot(vm, options);
  return await measureSnapshot(vm, async () => {
    await vm.migrate(`file:${options.file}`);
    await vm.waitMigration(MIGRATION_TIMEOUT_MS);
    return totalSeconds(vm);
  });
}

/** Restores a guest; the clock runs from the command to QEMU's word that it is done. */
export async function restoreByQemu(options: QemuSnapshotOptions): Promise<SnapshotRun> {
  await using vm = await start(options.meta, "destination");
  await configureSnapshot(vm, options);
  return await measureSnapshot(vm, async () => {
    await vm.migrateIncoming(`file:${options.file}`);
    await vm.waitMigration(MIGRATION_TIMEOUT_MS);
    return undefined;
  });
}

function start(
  meta: GuestMeta,
  name: "source" | "destination",
  ramFile?: string,
  tls?: TlsFolders,
): Promise<Qemu> {
  const [dir, endpoint] = name === "source" ? [tls?.sender, "client"] : [tls?.receiver, "server"];
  const object = `tls-creds-${tls?.kind},id=tls0,dir=${dir},endpoint=${endpoint}`;
  return Qemu.start({
    name,
    machine: meta.machine,
    memoryMib: meta.mib,
    incoming: "defer",
    paused: true,
    ramFile,
    prealloc: name === "destination",
    extraArgs: [...meta.boot_args, ...(tls === undefined ? [] : ["-object", object])],
  });
}

/** A paused guest from a snapshot. */
async function loadedSource(meta: GuestMeta, snapshot: string, tls?: TlsFolders): Promise<Qemu> {
  const vm = await start(meta, "source", undefined, tls);
  try {
    await vm.setCapabilities({ "mapped-ram": true });
    await vm.migrateIncoming(`file:${snapshot}`);
    await vm.waitMigration(MIGRATION_TIMEOUT_MS);
    return vm;
  } catch (error) {
    await vm[Symbol.asyncDispose]();
    throw error;
  }
}

async function configureMigration(
  vm: Qemu,
  { compression: method, channels, level, tls }: QemuMigrationOptions,
  returnPath: boolean,
): Promise<void> {
  await vm.setCapabilities({ "mapped-ram": false, multifd: true, "return-path": returnPath });
  const parameters: JsonObject = {
    "zero-page-detection": "multifd",
    "multifd-compression": method,
    ...(tls === undefined ? {} : { "tls-creds": "tls0" }),
  };
  await setChannels(vm, channels, parameters);
  if (method !== "none") await vm.setParameters({ [`multifd-${method}-level`]: level });
}

async function configureSnapshot(vm: Qemu, options: QemuSnapshotOptions): Promise<void> {
  await vm.setCapabilities({ "mapped-ram": true, multifd: true });
  await setChannels(vm, options.channels, { "direct-io": options.directIo });
  await Bun.sleep(SETTLE_MS);
}

async function setChannels(vm: Qemu, channels: number, more: JsonObject): Promise<void> {
  await vm.setParameters({ "multifd-channels": channels, "max-bandwidth": NO_LIMIT, ...more });
}

async function totalSeconds(vm: Qemu): Promise<number> {
  const { totalTimeMs } = await vm.queryMigrate();
  if (totalTimeMs === undefined) throw new Error("Cannot measure QEMU: it reports no total-time");
  return totalTimeMs / 1000;
}

/** @param work Returns seconds, if they are others than those that pass. */
async function measureSnapshot(
  vm: Qemu,
  work: () => Promise<number | undefined>,
): Promise<SnapshotRun> {
  const measured = measureSide(vm);
  const watch = watchMachine();
  const startMs = performance.now();
  const reported = await work();
  const wholeSeconds = (performance.now() - startMs) / 1000;
  const seconds = reported ?? wholeSeconds;
  const { cpuSeconds, memory } = measured();
  const { noisy } = watch(cpuSeconds);
  const setUpSeconds = wholeSeconds - seconds;
  return { seconds, setUpSeconds, cpuSeconds, extraBytes: memory.extraBytes, noisy };
}

/**
 * Starts to count what a QEMU uses; the result tells CPU seconds and memory since then. Its resident RAM
 * is not a round number, since untouched pages are not there: only growth is clear.
 */
export function measureSide(vm: Qemu): () => SideReport {
  resetPeak(vm.pid);
  const cpuSeconds = vm.cpuSeconds();
  const { rssBytes } = residentMemory(vm.pid);
  return () => {
    const { peakRssBytes } = residentMemory(vm.pid);
    return {
      cpuSeconds: vm.cpuSeconds() - cpuSeconds,
      setUpCpuSeconds: 0, // within the CPU seconds
      memory: { peakRssBytes, extraBytes: peakRssBytes - rssBytes },
    };
  };
}

/** See {@link sharedRamFile}. */
interface SharedRamFile extends Disposable {
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
