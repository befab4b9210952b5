/**
 * Makes the guest image the benchmarks move: the RAM of a running Debian Linux with a page cache of
 * text and programs, a process heap, and a compressed RAM disk that stands for what does not shrink.
 *
 *     bun bench/guest_image.ts [--mib 1024] [--out DIR] [--force]
 *
 * It boots Debian's cloud kernel (downloaded and unpacked, never installed) in QEMU, stops it and
 * writes, here for 1024 MiB:
 *
 *     linux1g.ram   the raw bytes of RAM, block pc.ram
 *     linux1g.snap  a mapped-ram migration file, from which QEMU can start with the same bytes
 *     linux1g.json  how it was booted
 *
 * The payload is this machine's /usr, so that images of two machines differ: keep the image to
 * compare runs.
 *
 * @module
 */

import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { runCommand } from "../test/kit/subprocess.ts";
import { TemporaryFolder } from "../test/kit/temporary_folder.ts";
import { Qemu, qemuAvailable } from "../test/qemu/qemu.ts";
import { cpioArchive, type CpioEntry } from "./cpio_archive.ts";
import { readPayload } from "./guest_payload.ts";
import { imageFacts } from "./image_facts.ts";
import { count, flag, runBenchmark, text as word } from "./settings.ts";

const KERNEL_METAPACKAGE = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE = "busybox-static";
const MACHINE = "q35";
const MIB = 2 ** 20;
const MIB_MIN = 256; // less does not hold the kernel, the RAM disk twice and the heap

// Shares of what the kernel leaves of RAM, chosen so that about a third of the pages stay zero, as in
// a server at work.
const KERNEL_MIB = 96;
const TEXT_SHARE = 0.22;
const PROGRAM_SHARE = 0.18;
const HEAP_SHARE = 1 / 16;

const RAM_DISK_ZSTD_LEVEL = 3;
const BOOT_TIMEOUT_MS = 400_000; // by translation, on a slow hour
const COMMAND_LIMIT_MS = 600_000; // downloads included
const SAVE_TIMEOUT_MS = 120_000;

/** The `.json` file beside a `.ram` and a `.snap`: how the guest was booted. */
export interface GuestMeta {
  readonly name: string;
  /** MiB of RAM. */
  readonly mib: number;
  /** QEMU's machine type. */
  readonly machine: string;
  /** Arguments the guest was booted with; whoever loads the snapshot has to have the same devices. */
  readonly boot_args: readonly string[];
}

/**
 * Reads such a file.
 *
 * @throws {Error} If it is not one.
 */
export async function readGuestMeta(path: string): Promise<GuestMeta> {
  const value = (await Bun.file(path).json()) as Partial<GuestMeta> | null;
  const { name, mib, machine, boot_args } = value ?? {};
  if (
    name !== undefined &&
    mib !== undefined &&
    machine !== undefined &&
    Array.isArray(boot_args)
  ) {
    return { name, mib, machine, boot_args };
  }
  throw new Error(`Cannot read ${path}: fields are missing, must be made by guest_image.ts`);
}

/** Where the benchmarks keep what is costly to make. */
export function cacheFolder(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "multifd");
}

/** File name, without its end, of an image of that size. */
export function imageName(mib: number): string {
  return mib % 1024 === 0 ? `linux${mib / 1024}g` : `linux${mib}m`;
}

/** Runs a program to its end and returns what it printed. */
async function run(command: readonly string[], cwd: string): Promise<string> {
  const { status, stdout, stderr } = await runCommand(command, {
    cwd,
    timeoutMs: COMMAND_LIMIT_MS,
  });
  if (status === 0) return stdout;
  throw new Error(`Cannot run ${command.join(" ")}: exited with ${status}: ${stderr.trim()}`);
}

/** Downloads a Debian package and unpacks it into `folder`. */
async function unpackPackage(name: string, folder: string): Promise<void> {
  await run(["apt-get", "download", name], folder);
  const archive = (await readdir(folder)).find((file) => file.startsWith(`${name}_`));
  if (archive === undefined) throw new Error(`Cannot unpack ${name}: apt-get left no file of it`);
  await run(["dpkg-deb", "--extract", archive, name], folder);
}

/** The kernel package the metapackage stands for at present. */
async function kernelPackage(folder: string): Promise<string> {
  const output = await run(["apt-cache", "depends", KERNEL_METAPACKAGE], folder);
  const name = /Depends: (linux-image-\S+)/.exec(output)?.[1];
  if (name !== undefined) return name;
  throw new Error(
    `Cannot find a kernel: ${KERNEL_METAPACKAGE} is unknown, run apt-get update first`,
  );
}

/** Downloads what boots and writes `kernel` and `initrd`. */
async function makeBootFiles(kernel: string, initrd: string, mib: number): Promise<void> {
  using temporary = new TemporaryFolder();
  const folder = temporary.path;
  const name = await kernelPackage(folder);
  await unpackPackage(name, folder);
  const boot = join(folder, name, "boot");
  const image = (await readdir(boot)).find((file) => file.startsWith("vmlinuz-"));
  if (image === undefined) throw new Error(`Cannot boot ${name}: it must have a /boot/vmlinuz-*`);
  await Bun.write(kernel, Bun.file(join(boot, image)));
  await unpackPackage(BUSYBOX_PACKAGE, folder);
  const busybox = join(folder, BUSYBOX_PACKAGE, "bin", "busybox");
  await Bun.write(initrd, await ramDisk(await Bun.file(busybox).bytes(), mib));
}

async function ramDisk(busybox: Uint8Array, mib: number): Promise<Uint8Array> {
  const init = await Bun.file(new URL("guest_init.sh", import.meta.url)).bytes();
  const free = (mib - KERNEL_MIB) * MIB;
  const text = await readPayload("text", TEXT_SHARE * free);
  const programs = await readPayload("program", PROGRAM_SHARE * free);
  const folders = ["bin", "payload"].map((path): CpioEntry => ({ path }));
  const payload = [...text, ...programs].map((bytes, index): CpioEntry => ({
    path: `payload/${String(index).padStart(6, "0")}`,
    bytes,
  }));
  const archive = cpioArchive([
    ...folders,
    { path: "bin/busybox", bytes: busybox, executable: true },
    { path: "init", bytes: init, executable: true },
    ...payload,
  ]);
  return Bun.zstdCompress(archive, { level: RAM_DISK_ZSTD_LEVEL });
}

/** Boots the guest, waits until it ticks, stops it and writes its RAM, snapshot and facts. */
async function takeSnapshot(files: ImageFiles, mib: number): Promise<void> {
  const { kernel, initrd, ram, snapshot, meta } = files;
  // retain_initrd keeps the compressed RAM disk in memory: pages that do not shrink. A ramfs, unlike
  // the usual tmpfs, takes a payload of more than half the RAM.
  const heap = `heap_mib=${Math.round(HEAP_SHARE * mib)}`;
  const append = `console=ttyS0 quiet panic=-1 nokaslr rootfstype=ramfs retain_initrd ${heap}`;
  const boot = { kernel, initrd, append };
  const started = performance.now();
  const partial = { ram: `${ram}.partial`, snapshot: `${snapshot}.partial` };
  await using stack = new AsyncDisposableStack();
  for (const file of Object.values(partial)) {
    await rm(file, { force: true }); // QEMU would boot on the RAM an earlier attempt left behind
    stack.defer(async () => rm(file, { force: true }));
  }
  await using vm = await Qemu.start({
    name: "guest",
    machine: MACHINE,
    memoryMib: mib,
    ...boot,
    ramFile: partial.ram,
    extraArgs: ["-no-reboot"],
  });
  const serial = await vm.waitSerial(/TICK 2/, BOOT_TIMEOUT_MS);
  if (/unpacking failed/.test(serial)) {
    throw new Error(
      `Cannot make an image: ${mib} MiB must hold the payload; guest said: ${serial}`,
    );
  }
  await vm.stop();
  await vm.setCapabilities({ "mapped-ram": true });
  await vm.setParameters({ "max-bandwidth": 2 ** 50 });
  await vm.migrate(`file:${partial.snapshot}`);
  await vm.waitMigration(SAVE_TIMEOUT_MS);
  const facts: GuestMeta & Record<string, unknown> = {
    name: imageName(mib),
    mib,
    accel: "tcg",
    machine: MACHINE,
    boot_args: Object.entries(boot).flatMap(([key, value]) => [`-${key}`, value]),
    boot_seconds: Math.round((performance.now() - started) / 1000),
    serial,
    image: await imageFacts(partial.ram),
  };
  await rename(partial.ram, ram);
  await rename(partial.snapshot, snapshot);
  await Bun.write(meta, `${JSON.stringify(facts, undefined, 1)}\n`); // last: it says all is there
}

interface ImageFiles {
  readonly kernel: string;
  readonly initrd: string;
  readonly ram: string;
  readonly snapshot: string;
  readonly meta: string;
}

/**
 * Makes an image unless it is there.
 *
 * @param folder Where to put it.
 * @param mib RAM of the guest, at least 256.
 * @param force Make it even if it is there.
 * @returns The `.ram` file.
 * @throws {RangeError} If the RAM is too small.
 * @throws {Error} Saying what is missing: QEMU, a package, or the guest's last words.
 */
export async function makeGuestImage(folder: string, mib: number, force = false): Promise<string> {
  if (!Number.isInteger(mib) || mib < MIB_MIN) {
    throw new RangeError(`Cannot make an image of ${mib} MiB: must be an integer from ${MIB_MIN}`);
  }
  const base = join(resolve(folder), imageName(mib)); // QEMU starts in a folder of its own
  const files: ImageFiles = {
    kernel: `${base}.kernel`,
    initrd: `${base}.initrd`,
    ram: `${base}.ram`,
    snapshot: `${base}.snap`,
    meta: `${base}.json`,
  };
  if (!force && (await Bun.file(files.meta).exists())) return files.ram;
  const missing = qemuAvailable();
  if (missing !== null) throw new Error(`Cannot make an image: ${missing}`);
  await mkdir(folder, { recursive: true });
  await rm(files.meta, { force: true });
  await makeBootFiles(files.kernel, files.initrd, mib);
  await takeSnapshot(files, mib);
  return files.ram;
}

if (import.meta.main) {
  const settings = {
    mib: count(1024, "RAM of the guest", MIB_MIN),
    out: word(cacheFolder(), "where to put it", "DIR"),
    force: flag("make it even if it is there"),
  };
  await runBenchmark("guest_image", settings, async ({ mib, out, force }) => {
    const ram = await makeGuestImage(out, mib, force);
    const { zeroPages, bytes } = await imageFacts(ram);
    console.log(`${ram}: ${((zeroPages * 4096 * 100) / bytes).toFixed(1)} % of the pages are zero`);
  });
}
