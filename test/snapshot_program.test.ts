import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { openSnapshot, RamBlock, Recording } from "../mod.ts";
import { runExample, type ExampleEnd } from "./kit/example_program.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { saveSnapshot } from "./kit/snapshots.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1 << 20;
const PAGE = 4096;

function snapshot(...args: readonly string[]): Promise<ExampleEnd> {
  return runExample("snapshot", [...args, "--json"]);
}

function twoBlocks(): [RamBlock, RamBlock] {
  const blocks: [RamBlock, RamBlock] = [
    RamBlock.allocate("pc.ram", 2 * MIB),
    RamBlock.allocate("/rom@etc/acpi/tables", 32 * PAGE),
  ];
  for (const [index, block] of blocks.entries()) fillBlock(block, index + 1);
  return blocks;
}

test("examples/snapshot info and verify tell what is in a file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const [ram, rom] = twoBlocks();
  await saveSnapshot({ path, blocks: [ram, rom] });
  const info = await snapshot("info", path);
  expect([info.status, info.stderr]).toEqual([0, ""]);
  expect(info.result).toMatchObject({
    ok: true,
    command: "info",
    compressed: false,
    machine: "multifd",
    capabilities: ["mapped-ram"],
    devices: [],
    fileBytes: statSync(path).size,
  });
  const [first, second] = info.result["blocks"] as { idstr: string; presentPages: number }[];
  expect([first?.idstr, second?.idstr]).toEqual(["pc.ram", "/rom@etc/acpi/tables"]);
  using file = await openSnapshot(path);
  expect(first?.presentPages).toBe(file.block("pc.ram").present.count());

  const image = folder.file("pc.ram");
  writeFileSync(image, ram.view(0, ram.bytes));
  const good = await snapshot("verify", path, "--block", `pc.ram=${image}`);
  expect([good.status, good.result["differentPages"]]).toEqual([0, 0]);
  ram.view(9 * PAGE, 1).fill(0x77);
  writeFileSync(image, ram.view(0, ram.bytes));
  const bad = await snapshot("verify", path, "--block", `pc.ram=${image}`);
  expect([bad.status, bad.result["ok"], bad.result["differentPages"]]).toEqual([1, false, 1]);
  expect(bad.stderr).toBe("Cannot confirm verify: the memory differs\n");
});

test("examples/snapshot diff, apply and extract work on changed pages", async () => {
  using folder = new TemporaryFolder();
  const [before, after, copy] = ["before", "after", "copy"].map((name) => folder.file(name));
  const [ram, rom] = twoBlocks();
  await saveSnapshot({ path: before!, blocks: [ram, rom] });
  ram.view(100 * PAGE, 2 * PAGE).fill(0x33);
  rom.view(31 * PAGE, PAGE).fill(0x44);
  await saveSnapshot({ path: after!, blocks: [ram, rom] });
  const diff = await snapshot("diff", before!, after!);
  expect(diff.result).toEqual({
    ok: true,
    command: "diff",
    changedPages: 3,
    runs: [
      { idstr: "pc.ram", start: 100, end: 102 },
      { idstr: "/rom@etc/acpi/tables", start: 31, end: 32 },
    ],
    unmatched: [],
  });
  const lines = await runExample("snapshot", ["diff", before!, after!]);
  expect(lines.stdout).toBe(
    "pc.ram 100 102\n/rom@etc/acpi/tables 31 32\n3 pages differ in 2 runs\n",
  );

  const applied = await snapshot("apply", before!, "--from", after!, "--output", copy!);
  expect(applied.result).toMatchObject({ ok: true, changedPages: 3 });
  const image = folder.file("image");
  const extracted = await snapshot("extract", copy!, "--block", "pc.ram", "--output", image);
  expect(extracted.result).toMatchObject({ ok: true, bytes: 2 * MIB });
  expect(Buffer.compare(readFileSync(image), ram.view(0, ram.bytes))).toBe(0);

  ram.view(0, PAGE).fill(0x55);
  writeFileSync(image, ram.view(0, ram.bytes));
  const options = ["--block", `pc.ram=${image}`, "--output", folder.file("patched")];
  expect((await snapshot("apply", copy!, ...options)).result).toMatchObject({ changedPages: 1 });
  using patched = await openSnapshot(folder.file("patched"));
  const { blocks } = await patched.load();
  expect([ram, rom].flatMap((block, index) => differingPages(block, blocks[index]!))).toEqual([]);

  const range = ["--block", "pc.ram", "--from", "400K", "--length", "8K", "--output", image];
  await snapshot("extract", copy!, ...range);
  expect(readFileSync(image).equals(Buffer.alloc(8192, 0x33))).toBe(true);
});

test("examples/snapshot convert goes through every format and back without a change", async () => {
  using folder = new TemporaryFolder();
  const path = (name: string): string => folder.file(name);
  const [ram, rom] = twoBlocks();
  await saveSnapshot({ path: path("a.snap"), blocks: [ram, rom] });
  const convert = async (...args: readonly string[]): Promise<ExampleEnd> => {
    const end = await snapshot("convert", ...args);
    expect([end.status, end.stderr]).toEqual([0, ""]);
    return end;
  };
  const original = readFileSync(path("a.snap"));
  await convert(path("a.snap"), "--to", "compressed", "--level", "9", "--output", path("a.zst"));
  expect(statSync(path("a.zst")).size).toBeLessThan(original.byteLength / 2);
  await convert(path("a.zst"), "--to", "mapped-ram", "--output", path("b.snap"));
  expect(readFileSync(path("b.snap")).equals(original)).toBe(true);

  await convert(path("a.zst"), "--to", "recording", "--channels", "3", "--output", path("a.rec"));
  {
    using recording = await Recording.open(path("a.rec"));
    expect(differingPages(ram, recording.blocks[0]!)).toEqual([]);
    expect(recording.state.machine).toBe("multifd");
  }
  await convert(path("a.rec"), "--to", "mapped-ram", "--direct-io", "--output", path("c.snap"));
  expect(readFileSync(path("c.snap")).equals(original)).toBe(true);

  await convert(path("a.snap"), "--to", "raw", "--output", path("raw"));
  await convert(path("a.rec"), "--to", "raw", "--output", path("raw2"));
  const names = ["%2From%40etc%2Facpi%2Ftables", "pc.ram"];
  for (const name of ["raw", "raw2"]) expect(readdirSync(path(name)).toSorted()).toEqual(names);
  const images = [
    `--block=pc.ram=${path("raw/pc.ram")}`,
    `--block=/rom@etc/acpi/tables=${path(`raw2/${names[0]}`)}`,
  ];
  await convert(...images, "--to", "mapped-ram", "--output", path("d.snap"));
  expect(readFileSync(path("d.snap")).equals(original)).toBe(true);

  for (const source of [images, [path("a.rec")]]) {
    const { result } = await convert(...source, "--to", "compressed", "--output", path("e.zst"));
    expect(result).toMatchObject({ to: "compressed", output: path("e.zst") });
    await convert(path("e.zst"), "--to", "mapped-ram", "--output", path("e.snap"));
    expect(readFileSync(path("e.snap")).equals(original)).toBe(true);
  }
  expect(readdirSync(folder.path).filter((name) => name.startsWith("."))).toEqual([]);
});

test("examples/snapshot ends with one line and status 1 for bad files, 2 with usage for bad arguments", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  await saveSnapshot({ path, blocks: [RamBlock.allocate("pc.ram", MIB)] });
  const text = folder.file("text");
  writeFileSync(text, "not a snapshot at all, nor will it ever be one\n");
  const output = folder.file("output");
  for (const args of [
    ["info", text],
    ["info", folder.file("missing")],
    ["verify", `${path},offset=4096`],
    ["convert", text, "--to", "compressed", "--output", output],
    ["convert", folder.file("missing"), "--to", "raw", "--output", output],
    ["extract", path, "--block", "pc.ram", "--output", folder.file("no/where")],
    ["apply", path, "--block", `pc.ram=${text}`, "--output", output],
  ]) {
    const { status, stderr, result } = await snapshot(...args);
    expect([args, status, result["ok"]]).toEqual([args, 1, false]);
    expect(stderr).toMatch(/^[^\n]+\n$/);
  }
  for (const args of [
    ["frobnicate", path],
    ["info"],
    ["info", path, path],
    ["info", `${path},offset=0x20M`],
    ["extract", path, "--output", output],
    ["extract", path, "--block", "pc.bios", "--output", output],
    ["extract", path, "--block", "pc.ram", "--output", output, "--from", "2M"],
    ["apply", path, "--output", output],
    ["convert", path, "--to", "qcow2", "--output", output],
    ["convert", path, "--to", "compressed", "--level", "20", "--output", output],
  ]) {
    const { status, stderr, stdout } = await snapshot(...args);
    expect([args, status, stdout]).toEqual([args, 2, ""]);
    expect(stderr).toContain("Usage: bun examples/snapshot.ts");
  }
  expect(existsSync(output)).toBe(false);
  for (const args of [["--help"], ["convert", "--help"]]) {
    const { status, stdout } = await runExample("snapshot", args);
    expect(status).toBe(0);
    expect(stdout).toStartWith("Usage: bun examples/snapshot.ts");
  }
});
