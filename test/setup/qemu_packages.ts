/**
 * Unpacks QEMUs of other Debian releases, with every library that they need, into folders of their
 * own: an old and a new one to migrate with, on a machine that keeps the QEMU that it has. What was
 * unpacked is kept for the next run, outside the repository.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { cacheDirectory } from "./cache_directory.ts";
import { outputOf, run } from "./command.ts";
import { downloadPackages } from "./private_apt.ts";

/** QEMUs that tests may ask for, and the Debian suites that have them. */
const UNPACKED_QEMUS = { "7.2": "bookworm", "11.1": "sid" } as const;

/** Names an unpacked QEMU; a suite that moves on may have a later one than its name says. */
type UnpackedQemu = keyof typeof UNPACKED_QEMUS;

const packageName = "qemu-system-x86";
const program = "usr/bin/qemu-system-x86_64";
const libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const dataFolders = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/** Path of the program that starts an unpacked QEMU; there is none yet where set-up cannot have it. */
export function unpackedQemuPath(version: UnpackedQemu): string {
  return join(cacheDirectory(), `qemu-${version}`, "qemu-system-x86_64");
}

/** Unpacks those that are missing. Never throws: tests that need a missing one are skipped. */
export async function prepareQemus(): Promise<void> {
  for (const version of Object.keys(UNPACKED_QEMUS) as UnpackedQemu[]) {
    try {
      await prepareQemu(version);
    } catch (error) {
      console.log(`Cannot unpack QEMU ${version}: ${String(error)}`);
    }
  }
}

async function prepareQemu(version: UnpackedQemu): Promise<void> {
  const path = unpackedQemuPath(version);
  const before = await versionLine(path);
  if (before !== undefined) {
    console.log(`unpacked before: ${before}`);
    return;
  }
  const architecture = (await outputOf(["dpkg", "--print-architecture"]))?.trim();
  if (architecture !== "amd64") {
    console.log(
      `Cannot unpack QEMU ${version}: this is ${architecture ?? "not a Debian"}, must be amd64`,
    );
    return;
  }
  mkdirSync(cacheDirectory(), { recursive: true });
  // In the cache's own file system, so that the finished folder can be renamed into its place.
  const directory = mkdtempSync(join(cacheDirectory(), `.qemu-${version}-`));
  try {
    const root = await unpack(directory, version);
    if (root === undefined) return;
    // Whatever is there does not run; a run beside this one may have been quicker, though.
    if ((await versionLine(path)) === undefined) {
      rmSync(dirname(path), { recursive: true, force: true });
      renameSync(root, dirname(path));
    }
    console.log(`unpacked: ${(await versionLine(path)) ?? `${path}, which does not run`}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The folder to keep, or undefined after a message that says why there is none. */
async function unpack(directory: string, version: UnpackedQemu): Promise<string | undefined> {
  const archives = await downloadPackages(directory, {
    suite: UNPACKED_QEMUS[version],
    packageName,
    withDependencies: true,
  });
  if (archives === undefined) return undefined;
  const everything = join(directory, "everything");
  mkdirSync(everything);
  for (const archive of archives) {
    if ((await run(["dpkg-deb", "--extract", archive, everything])) !== 0) return undefined;
  }
  // Most of what was unpacked is documentation and programs that nobody starts.
  const root = join(directory, "root");
  for (const kept of [program, ...libraries, ...dataFolders]) {
    if (!existsSync(join(everything, kept))) continue;
    mkdirSync(dirname(join(root, kept)), { recursive: true });
    renameSync(join(everything, kept), join(root, kept));
  }
  const starter = join(root, "qemu-system-x86_64");
  writeFileSync(starter, starterScript());
  chmodSync(starter, 0o755);
  return root;
}

/** Starts the program by the folder's own loader: the machine's may be older than the libraries. */
function starterScript(): string {
  const inRoot = (path: string): string => `"$root/${path}"`;
  const loader = "ld-linux-x86-64.so.2";
  return `#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
export QEMU_MODULE_DIR=${inRoot(`${libraries[0]}/qemu`)}
loader=${inRoot(`${libraries[0]}/${loader}`)}
[ -e "$loader" ] || loader=${inRoot(`${libraries[1]}/${loader}`)}
exec "$loader" --library-path ${libraries.map(inRoot).join(":")} ${inRoot(program)} \\
  ${dataFolders.map((folder) => `-L ${inRoot(folder)}`).join(" ")} "$@"
`;
}

async function versionLine(path: string): Promise<string | undefined> {
  return (await outputOf([path, "--version"]))?.split("\n")[0];
}

if (import.meta.main) await prepareQemus();
