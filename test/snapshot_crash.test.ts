import { expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { MultifdError, openSnapshot } from "../mod.ts";
import { killWithin, runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun } from "./setup/command.ts";

const CHILD = new URL("./kit/file_child.ts", import.meta.url).pathname;
const KILLS = 8;

/** Starts the writer, waits for its first complete file, and kills it within 150 ms. */
function killWriter(path: string, offset: number): Promise<void> {
  return killWithin(150, [bun, CHILD, "overwrite", path, String(offset)]);
}

/** The number that all words of the file hold; undefined when the file is visibly incomplete. */
async function generationOf(path: string, offset: number): Promise<number | undefined> {
  try {
    using file = await openSnapshot(path, { offset });
    const { blocks } = await file.load();
    const words = new Set<number>();
    for (const view of blocks[0]?.views() ?? []) {
      for (const word of new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4)) {
        words.add(word);
      }
    }
    expect(words.size).toBe(1);
    return [...words][0];
  } catch (error) {
    if (error instanceof MultifdError) return undefined;
    throw error;
  }
}

test("createSnapshot() always leaves one complete file when killed at any moment", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  for (let kill = 0; kill < KILLS; kill++) {
    await killWriter(path, 0);
    expect(existsSync(path)).toBe(true);
    expect(await generationOf(path, 0)).toBeGreaterThan(0);
  }
}, 120_000);

test("createSnapshot() in place leaves a complete file or one that is visibly none when killed", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const offset = 4096;
  let incomplete = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    writeFileSync(path, new Uint8Array(offset).fill(0xa5));
    await killWriter(path, offset);
    if ((await generationOf(path, offset)) === undefined) incomplete++;
    const front = new Uint8Array(await Bun.file(path).slice(0, offset).arrayBuffer());
    expect(front.every((byte) => byte === 0xa5)).toBe(true);
  }
  // The writer spends nearly all of its time on a file that is not complete yet.
  expect(incomplete).toBeGreaterThan(0);
}, 120_000);

const MOUNT = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"';

/** A command that sees an empty file system of 8 MiB at `folder`. */
function onSmallDisk(folder: string, command: readonly string[]): string[] {
  return ["unshare", "-rm", "sh", "-c", MOUNT, folder, ...command];
}

const canMount = ((): boolean => {
  using folder = new TemporaryFolder();
  if (Bun.which("unshare") === null) return false;
  return Bun.spawnSync(onSmallDisk(folder.path, ["true"]), { stderr: "ignore" }).exitCode === 0;
})();
const missing = canMount ? "" : " (needs user namespaces with mount, which are not allowed here)";

test.skipIf(!canMount)(
  `createSnapshot() on a full disk fails with ENOSPC, leaves nothing, and works again${missing}`,
  async () => {
    using folder = new TemporaryFolder();
    const end = await runCommand(onSmallDisk(folder.path, [bun, CHILD, "fill-disk", folder.path]));
    expect(end).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(end.stdout)).toEqual({
      code: "ERR_MULTIFD_SYSTEM",
      errno: "ENOSPC",
      left: [],
      present: 1024,
    });
  },
);
