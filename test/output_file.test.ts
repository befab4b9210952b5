import { expect, test } from "bun:test";
import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { OutputFile } from "../lib/storage/output_file.ts";
import { createSnapshot, RamBlock } from "../mod.ts";
import { rejectionOf, thrownBy } from "./kit/errors.ts";
import { killWithin, runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun } from "./setup/command.ts";

const CHILD = new URL("./kit/file_child.ts", import.meta.url).pathname;

/** Starts a program that writes into `folder` and kills it in the middle. */
function killWriter(kind: string, folder: string): Promise<void> {
  return killWithin(100, [bun, CHILD, "write", kind, folder]);
}

const parts = (folder: string): string[] =>
  readdirSync(folder).filter((name) => name.includes("part"));

test.each(["snapshot", "image", "recording", "compressed", "extracted"])(
  "a killed writer leaves no unfinished file: %s",
  async (kind) => {
    using folder = new TemporaryFolder();
    for (let kill = 0; kill < 4; kill++) {
      await killWriter(kind, folder.path);
      const left = parts(folder.path);
      // Only while it replaces an older file it has a name; the next output takes that away.
      expect(left.length).toBeLessThanOrEqual(1);
      new OutputFile(folder.file("next"))[Symbol.dispose]();
      expect(parts(folder.path)).toEqual([]);
    }
  },
  120_000,
);

test("OutputFile has no name until it is committed, and then takes that of an older file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("output");
  for (const content of ["first", "second"]) {
    using output = new OutputFile(path);
    await output.write(new TextEncoder().encode(content), 0);
    expect(readdirSync(folder.path)).toEqual(content === "first" ? [] : ["output"]);
    await output.sync();
    output.commit(true);
  }
  expect(readFileSync(path, "utf8")).toBe("second");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  new OutputFile(path)[Symbol.dispose]();
  expect(readdirSync(folder.path)).toEqual(["output"]);
  symlinkSync("nowhere", folder.file("link"));
  using output = new OutputFile(folder.file("link"));
  output.commit(false);
  expect(readFileSync(folder.file("link"), "utf8")).toBe("");
});

test("OutputFile removes parts of writers that are gone, and of no others", () => {
  using folder = new TemporaryFolder();
  for (const name of [".multifd-part-0123456789ab", ".multifd-0123.part", "guest.partial-1"]) {
    writeFileSync(folder.file(name), "memory");
  }
  new OutputFile(folder.file("output"))[Symbol.dispose]();
  expect(readdirSync(folder.path).toSorted()).toEqual([".multifd-0123.part", "guest.partial-1"]);
});

test("OutputFile has a name with a lock where a file cannot be without one", async () => {
  using folder = new TemporaryFolder();
  const [first, second] = ["first", "second"].map((name) => folder.file(name));
  using one = new OutputFile(first!, { unnamed: false });
  using two = new OutputFile(second!, { unnamed: false }); // sweeps the folder
  expect(parts(folder.path)).toHaveLength(2);
  await one.write(new Uint8Array(3), 0);
  one.commit(true);
  two[Symbol.dispose]();
  expect(readdirSync(folder.path)).toEqual(["first"]);
  expect(statSync(first!).size).toBe(3);

  await killWriter("named", folder.path);
  expect(parts(folder.path)).toHaveLength(1);
  new OutputFile(first!)[Symbol.dispose]();
  expect(readdirSync(folder.path)).toEqual(["first"]);
});

test("nothing that is no file is written to, and none of it blocks", async () => {
  using folder = new TemporaryFolder();
  const pipe = folder.file("pipe");
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
  const { stdout, killed } = await runCommand([bun, CHILD, "fifo", pipe]);
  expect(killed).toBe(false);
  const codes = JSON.parse(stdout) as Record<string, string>;
  expect(Object.keys(codes)).toHaveLength(9);
  expect(new Set(Object.values(codes))).toEqual(new Set(["ERR_MULTIFD_IMAGE"]));

  const error = thrownBy(() => RamBlock.map("pc.ram", folder.path));
  expect(error.code).toBe("ERR_MULTIFD_IMAGE");
  expect(error.message).toBe(
    `Cannot map ${folder.path}: it is a directory, must be a regular file or a block device`,
  );
  const block = RamBlock.allocate("pc.ram", 4096);
  for (const path of [folder.path, "/dev/null"]) {
    const made = createSnapshot({ path, blocks: [block] });
    expect((await rejectionOf(made)).code).toBe("ERR_MULTIFD_IMAGE");
  }
  expect(existsSync(pipe)).toBe(true);
});
