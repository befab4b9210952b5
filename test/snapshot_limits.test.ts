import { expect, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
} from "node:fs";
import { layOutRegion, writeRegionHeader } from "../lib/snapshot/mapped_ram_format.ts";
import { FileOutput } from "../lib/snapshot/positioned_io.ts";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { createSnapshot, LimitError, openSnapshot, RamBlock } from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { RandomWriters } from "./kit/random_writers.ts";
import { saveSnapshot } from "./kit/snapshots.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const PAGE = 4096;
const MIB = 1 << 20;
const TIB = 2 ** 40;

/** A file that announces blocks of those lengths, all of them holes. */
function writeAnnouncement(path: string, lengths: readonly number[]): void {
  const fd = openSync(path, "w");
  try {
    const output = new FileOutput(fd, 0);
    const writer = new MainStreamWriter(output.writer);
    const configuration = { machine: "none", capabilities: ["mapped-ram"] };
    writer.header(configuration);
    writer.beginRamSection("start");
    output.writer.u64(lengths.reduce((sum, bytes) => sum + bytes, 0) + 4);
    for (const [index, bytes] of lengths.entries()) {
      const block = { idstr: `block${index}`, bytes };
      output.writer.countedString(block.idstr);
      output.writer.u64(bytes);
      const region = layOutRegion(block, PAGE, output.flush());
      writeRegionHeader(output.writer, region);
      output.seek(region.pagesOffset + bytes);
      ftruncateSync(fd, region.pagesOffset + bytes);
    }
    writer.endRamSection();
    writer.beginRamSection("end");
    writer.endRamSection();
    writer.end({ devices: [] });
    output.seal((seal) => {
      seal.u32(0x5145_564d);
      seal.u32(3);
    });
  } finally {
    closeSync(fd);
  }
}

function leftovers(): { readonly descriptors: number; readonly threads: number } {
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
  };
}

test("openSnapshot() and load() hold what a file announces to their limits", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("large.snap");
  writeAnnouncement(path, [3 * TIB, 2 * TIB]);
  const error = await rejectionOf(openSnapshot(path));
  expect(error).toBeInstanceOf(LimitError);
  expect(error.code).toBe("ERR_MULTIFD_LIMIT_RAM");

  writeAnnouncement(path, [1 * TIB]);
  using file = await openSnapshot(path);
  expect(file.block("block0").bytes).toBe(TIB);
  expect(file.readPage("block0", 2 ** 28 - 1).every((byte) => byte === 0)).toBe(true);
  expect(await rejectionOf(file.load())).toMatchObject({ code: "ERR_MULTIFD_LIMIT_RAM" });
  expect(await rejectionOf(file.load({ ramBytesMax: TIB - 1 }))).toBeInstanceOf(LimitError);
});

test("saving and loading take the same memory for a small image and a large one", async () => {
  using folder = new TemporaryFolder();
  // The first only starts threads and compiles code, which the runtime keeps.
  const sizes = ["8", "32", "384"];
  const extras = (await fixtureResult("snapshot_memory", [
    folder.file("guest.snap"),
    ...sizes,
  ])) as number[];
  const [small, large] = extras.slice(1);
  expect(large!).toBeLessThan(small! + 32 * MIB);
  expect(large!).toBeLessThan(96 * MIB);
});

test("load() checks the memory it is given, and loads a part of the blocks", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const blocks = ["a", "b", "c"].map((idstr) => RamBlock.allocate(idstr, 20 * PAGE));
  for (const [index, block] of blocks.entries()) fillBlock(block, index);
  await saveSnapshot({ path, blocks });
  using file = await openSnapshot(path);
  const target = RamBlock.allocate("b", 20 * PAGE);
  const loaded = await file.load({ blocks: [target], zeroed: true, channels: 3 });
  expect(loaded.blocks).toEqual([target]);
  expect(differingPages(target, blocks[1]!)).toEqual([]);
  for (const wrong of [
    RamBlock.allocate("d", 20 * PAGE),
    RamBlock.allocate("b", 19 * PAGE),
    RamBlock.allocate("b", 20 * PAGE * 4, { pageSize: 16_384 }),
  ]) {
    await expect(file.load({ blocks: [wrong] })).rejects.toThrow(RangeError);
  }
  await expect(file.load({ channels: 0 })).rejects.toThrow(RangeError);
});

test("SnapshotWriter keeps a symbolic link, writes in place on request, and calls in order", async () => {
  using folder = new TemporaryFolder();
  const [path, link] = [folder.file("guest.snap"), folder.file("link.snap")];
  const block = RamBlock.allocate("pc.ram", 600 * PAGE);
  fillBlock(block, 1);
  await saveSnapshot({ path, blocks: [block] });
  symlinkSync("guest.snap", link);
  fillBlock(block, 2);
  await saveSnapshot({ path: link, blocks: [block] });
  expect(lstatSync(link).isSymbolicLink()).toBe(true);

  fillBlock(block, 3);
  {
    const options = { path, blocks: [block], inPlace: true, sync: false };
    await using writer = await createSnapshot(options);
    expect(readdirSync(folder.path).toSorted()).toEqual(["guest.snap", "link.snap"]);
    // From here on the old file is gone and the new one is not there yet.
    expect((await rejectionOf(openSnapshot(path))).code).toMatch(/_(MAGIC|TRUNCATED)$/);
    const calls = [
      writer.writeRange(block, 0, 300),
      writer.writeRange(block, 300, 600),
      writer.complete(),
    ];
    await Promise.all(calls);
  }
  using file = await openSnapshot(link);
  const { blocks } = await file.load();
  expect(differingPages(block, blocks[0]!)).toEqual([]);
});

test("createSnapshot() and openSnapshot() use a file that is only open, and has no name", async () => {
  using folder = new TemporaryFolder();
  const block = RamBlock.allocate("pc.ram", 400 * PAGE);
  fillBlock(block, 5);
  const fd = openSync(folder.file("nameless"), "w+");
  try {
    unlinkSync(folder.file("nameless"));
    for (const path of [`/proc/self/fd/${fd}`, `/dev/fd/${fd}`]) {
      await saveSnapshot({ path, blocks: [block], channels: 3, directIo: true, sync: true });
      using file = await openSnapshot(path);
      const { blocks } = await file.load({ directIo: true });
      expect(differingPages(block, blocks[0]!)).toEqual([]);
    }
    expect(readdirSync(folder.path)).toEqual([]);
  } finally {
    closeSync(fd);
  }
});

test("SnapshotWriter and load() work while channels still start, round after round", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 48 * 2 ** 20);
  // With direct I/O each channel that is ready starts another one, in the middle of a pass.
  const many = { channels: 24, directIo: true };
  await using writer = await createSnapshot({ path, blocks: [block], sync: false, ...many });
  for (let round = 1; round <= 4; round++) {
    for (const view of block.views()) view.fill(round === 2 ? 0 : round);
    await writer.write();
  }
  const { normalPages, zeroPages, channels } = await writer.complete();
  expect([normalPages, zeroPages]).toEqual([3 * block.pages, block.pages]);
  expect(channels).toHaveLength(24);
  using file = await openSnapshot(path);
  const loaded = await file.load({ ...many, prefault: true });
  expect(differingPages(block, loaded.blocks[0]!)).toEqual([]);
  expect(loaded.statistics.normalPages).toBe(block.pages);
});

test("SnapshotWriter saves memory that changes all the while, once the last round is quiet", async () => {
  for (const directIo of [false, true]) {
    using folder = new TemporaryFolder();
    const path = folder.file("live.snap");
    await using writers = new RandomWriters({ bytes: 8 * 2 ** 20, clears: true });
    const block = RamBlock.fromBuffer("pc.ram", writers.buffer);
    const options = { path, blocks: [block], channels: 3, directIo, sync: false };
    await using writer = await createSnapshot(options);
    await writers.run();
    await writer.write();
    for (let round = 0; round < 4; round++) await writer.writeBitmap(block, writers.bitmap);
    await writers.pause();
    await writer.writeBitmap(block, writers.bitmap);
    const { normalPages } = await writer.complete();
    using file = await openSnapshot(path);
    const { present } = file.block("pc.ram");
    expect(normalPages).toBeGreaterThan(present.count()); // pages were written more than once
    const { blocks } = await file.load();
    expect(differingPages(block, blocks[0]!)).toEqual([]);
    // Pages that were cleared after they had been written have lost their bits again.
    for (let page = 0; page < block.pages; page++) {
      const isZero = block.view(page * PAGE, PAGE).every((byte) => byte === 0);
      if (present.has(page) === isZero) expect([page, isZero]).toEqual([page, !isZero]);
    }
  }
});

test("SnapshotWriter and load() leave no thread and no descriptor, failed or not", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 700 * PAGE);
  fillBlock(block, 1);
  const work = async (): Promise<void> => {
    await saveSnapshot({ path, blocks: [block], channels: 4 });
    using file = await openSnapshot(path);
    await file.load({ channels: 4 });
    truncateSync(path, file.block("pc.ram").pagesOffset + 100 * PAGE);
    await rejectionOf(file.load({ channels: 4 }));
  };
  await work(); // threads that the runtime keeps for itself are there from now on
  await Bun.sleep(300);
  const before = leftovers();
  for (let round = 0; round < 5; round++) await work();
  const deadline = performance.now() + 10_000;
  const grown = (): boolean => {
    const now = leftovers();
    return now.descriptors > before.descriptors || now.threads > before.threads + 2;
  };
  while (grown() && performance.now() < deadline) await Bun.sleep(50);
  expect(leftovers().descriptors).toBeLessThanOrEqual(before.descriptors);
  expect(leftovers().threads).toBeLessThanOrEqual(before.threads + 2); // the runtime's own vary
});
