import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";

import { RamBlock, saveBlocks } from "../mod.ts";
import { OutputFile } from "../lib/storage/output_file.ts";
import { OutputFolder } from "../lib/storage/output_folder.ts";
import { rejectionOf } from "./kit/errors.ts";
import { fillBlock } from "./kit/page_content.ts";
import { runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun } from "./setup/command.ts";

let folder: TemporaryFolder;

beforeEach(() => {
  folder = new TemporaryFolder();
});

afterEach(() => {
  folder[Symbol.dispose]();
});

function images(): { block: RamBlock; name: string }[] {
  return ["ram", "rom"].map((name, index) => {
    const block = RamBlock.allocate(name, 65_536);
    fillBlock(block, index + 1);
    return { block, name };
  });
}

function contentOf(block: RamBlock): Buffer {
  return Buffer.concat([...block.views()]);
}

test("saveBlocks() makes a folder that appears with all its files", async () => {
  const path = folder.file("out");
  const saved = images();
  const saving = saveBlocks(path, saved);
  expect(readdirSync(folder.path)).not.toContain("out");
  await saving;
  for (const { block, name } of saved) {
    expect(readFileSync(`${path}/${name}`).equals(contentOf(block))).toBe(true);
  }
  expect(readdirSync(folder.path)).toEqual(["out"]);
});

test("saveBlocks() leaves nothing of a folder when a block cannot be saved", async () => {
  const [first] = images();
  const long = { ...first!, name: "x".repeat(300) };
  const failure = await rejectionOf(saveBlocks(folder.file("out"), [first!, long]));
  expect(failure).toMatchObject({ errno: "ENAMETOOLONG" });
  const controller = new AbortController();
  const saving = rejectionOf(
    saveBlocks(folder.file("out"), images(), { signal: controller.signal }),
  );
  controller.abort();
  expect((await saving).code).toBe("ERR_MULTIFD_CANCELLED");
  expect(readdirSync(folder.path)).toEqual([]);
});

test("saveBlocks() keeps what a folder holds, and refuses what is none", async () => {
  const target = folder.file("out");
  mkdirSync(target);
  writeFileSync(`${target}/other`, "kept");
  await saveBlocks(target, images());
  expect(readdirSync(target).toSorted()).toEqual(["other", "ram", "rom"]);
  expect((await rejectionOf(saveBlocks(`${target}/other`, images()))).code).toBe(
    "ERR_MULTIFD_IMAGE",
  );
  const [first] = images();
  for (const name of ["", "..", "a/b", "a\0b"]) {
    await expect(saveBlocks(target, [{ ...first!, name }])).rejects.toThrow(RangeError);
  }
  await expect(saveBlocks(target, [first!, first!])).rejects.toThrow("comes twice");
});

test("a folder whose writer was killed is removed by the next output beside it, and no other", async () => {
  const program = [
    `import { writeFileSync } from "node:fs";`,
    `import { OutputFolder } from "./lib/storage/output_folder.ts";`,
    `const { path } = new OutputFolder(${JSON.stringify(folder.file("out"))}, "Cannot save");`,
    `writeFileSync(path + "/ram", "memory");`,
    `process.kill(process.pid, "SIGKILL");`,
  ].join("\n");
  await runCommand([bun, "-e", program]);
  expect(readdirSync(folder.path)).toHaveLength(1);
  using open = new OutputFolder(folder.file("next"), "Cannot save");
  const own = [open.path.slice(folder.path.length + 1)];
  expect(readdirSync(folder.path)).toEqual(own);
  new OutputFile(folder.file("file"))[Symbol.dispose]();
  expect(readdirSync(folder.path)).toEqual(own);
  open.commit();
  expect(readdirSync(folder.path)).toEqual(["next"]);
});
