import { expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import {
  copySnapshot,
  createSnapshot,
  diffSnapshots,
  extractBlock,
  openSnapshot,
  parseFileUri,
  RamBlock,
  readDeviceState,
  readGuestState,
  verifySnapshot,
  type BlockPageRun,
  type DiffOptions,
  type Snapshot,
  type PageReader,
} from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { saveSnapshot } from "./kit/snapshots.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1 << 20;
const PAGE = 4096;

async function runsOf(
  left: Snapshot,
  right: PageReader,
  options?: DiffOptions,
): Promise<BlockPageRun[]> {
  return Array.fromAsync(diffSnapshots(left, right, options));
}

/** Two snapshots of two blocks, the second with some pages changed. */
async function twoSnapshots(folder: TemporaryFolder): Promise<{
  readonly before: string;
  readonly after: string;
  readonly blocks: readonly RamBlock[];
  readonly changed: readonly BlockPageRun[];
}> {
  const blocks = [RamBlock.allocate("pc.ram", 3 * MIB), RamBlock.allocate("vga.vram", 70 * PAGE)];
  for (const [index, block] of blocks.entries()) fillBlock(block, index + 1);
  const [before, after] = [folder.file("before.snap"), folder.file("after.snap")];
  await saveSnapshot({ path: before, blocks });
  const changed = [
    { idstr: "pc.ram", start: 0, end: 1 },
    { idstr: "pc.ram", start: 250, end: 260 }, // across a window of 1 MiB
    { idstr: "pc.ram", start: 767, end: 768 },
    { idstr: "vga.vram", start: 64, end: 66 },
  ];
  for (const { idstr, start, end } of changed) {
    const block = blocks.find((candidate) => candidate.idstr === idstr)!;
    for (let page = start; page < end; page++) {
      const view = block.view(page * PAGE, PAGE);
      // Present pages become zero and zero pages present, both at once in most runs.
      if (view.some((byte) => byte !== 0)) view.fill(0);
      else fillPage(view, "random", page);
    }
  }
  await saveSnapshot({ path: after, blocks });
  return { before, after, blocks, changed };
}

test("diffSnapshots() finds exactly the changed runs, zero pages on either side included", async () => {
  using folder = new TemporaryFolder();
  const { before, after, changed } = await twoSnapshots(folder);
  using left = await openSnapshot(before);
  using right = await openSnapshot(after);
  const calls: [number, number][] = [];
  const onProgress = (done: number, all: number): unknown => calls.push([done, all]);
  expect(await runsOf(left, right, { onProgress })).toEqual([...changed]);
  expect(calls.at(-1)).toEqual([3 * MIB + 70 * PAGE, 3 * MIB + 70 * PAGE]);
  expect(await runsOf(right, left, { blocks: ["vga.vram"] })).toEqual([changed[3]!]);
  expect(await runsOf(left, left)).toEqual([]);
});

test("diffSnapshots() takes a present page of zeros for an absent one", async () => {
  using folder = new TemporaryFolder();
  const block = RamBlock.allocate("pc.ram", 10 * PAGE);
  const [sparse, full] = [folder.file("sparse.snap"), folder.file("full.snap")];
  await saveSnapshot({ path: sparse, blocks: [block] });
  await saveSnapshot({ path: full, blocks: [block], zeroPageDetection: "none" });
  using left = await openSnapshot(sparse);
  using right = await openSnapshot(full);
  expect(right.block("pc.ram").present.count()).toBe(10);
  expect(await runsOf(left, right)).toEqual([]);
});

test("copySnapshot() copies byte for byte, holes included, and applies changes", async () => {
  using folder = new TemporaryFolder();
  const { before, after, blocks } = await twoSnapshots(folder);
  using left = await openSnapshot(before);
  using right = await openSnapshot(after);
  const plain = folder.file("plain.snap");
  const { presentPages } = await copySnapshot(left, plain);
  expect(readFileSync(plain).equals(readFileSync(before))).toBe(true);
  // The file system's own records differ a little, the holes are of megabytes.
  expect(statSync(plain).blocks).toBeLessThan(statSync(before).blocks * 1.1);
  expect(presentPages).toBe(left.blocks.reduce((sum, { present }) => sum + present.count(), 0));

  const patched = folder.file("patched.snap");
  const changes = { runs: diffSnapshots(left, right), pages: right };
  const result = await copySnapshot(left, patched, { changes });
  expect(result.changedPages).toBe(14);
  using file = await openSnapshot(patched);
  const loaded = await file.load();
  for (const [index, block] of blocks.entries()) {
    expect(differingPages(block, loaded.blocks[index]!)).toEqual([]);
  }
  // Pages that became zero are absent, as in the snapshot they came from.
  expect(file.blocks.map(({ present }) => present.count())).toEqual(
    right.blocks.map(({ present }) => present.count()),
  );
  expect(left.block("pc.ram").present.count()).not.toBe(file.block("pc.ram").present.count());

  const outside = { runs: [{ idstr: "pc.ram", start: 700, end: 769 }], pages: right };
  const failed = copySnapshot(left, folder.file("bad.snap"), { changes: outside });
  await expect(failed).rejects.toThrow(RangeError);
  expect(readdirSync(folder.path)).not.toContain("bad.snap");
});

test("copySnapshot() keeps a start offset and what is in front of it", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("offset.snap");
  const block = RamBlock.allocate("pc.ram", 9 * PAGE);
  fillBlock(block, 1);
  writeFileSync(path, new Uint8Array(4100).fill(0xa5));
  await saveSnapshot({ path: path, blocks: [block], offset: 4100 });
  using file = await openSnapshot(path, { offset: 4100 });
  const copy = folder.file("copy.snap");
  await copySnapshot(file, copy);
  expect(readFileSync(copy).equals(readFileSync(path))).toBe(true);
});

test("extractBlock() writes a block or a range of it as a raw image with holes", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 8 * MIB);
  fillBlock(block, 1);
  block.view(MIB, 6 * MIB).fill(0);
  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  const whole = folder.file("whole.ram");
  const bytes = await extractBlock(file, "pc.ram", whole);
  expect(Buffer.compare(readFileSync(whole), block.view(0, block.bytes))).toBe(0);
  expect(statSync(whole).blocks * 512).toBeLessThan(3 * MIB);
  expect(bytes).toBeLessThanOrEqual(2 * MIB);
  const part = folder.file("part.ram");
  await extractBlock(file, "pc.ram", part, { offset: 4097, bytes: 100_001 });
  expect(Buffer.compare(readFileSync(part), block.view(4097, 100_001))).toBe(0);
  const outside = extractBlock(file, "pc.ram", part, { offset: 8 * MIB - 1, bytes: 2 });
  await expect(outside).rejects.toThrow(RangeError);
  const missing = extractBlock(file, "pc.bios", part);
  await expect(missing).rejects.toThrow(RangeError);
});

test("verifySnapshot() reads everything and checks the end of the stream", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 700 * PAGE);
  fillBlock(block, 1);
  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  const present = file.block("pc.ram").present.count();
  expect(await verifySnapshot(file)).toEqual({
    presentPages: present,
    presentZeroPages: 0,
    sharedBlocks: [],
    devices: [],
  });
  const bytes = readFileSync(path);
  // A page that was lost: present by its bit, and a hole.
  const lost = folder.file("lost.snap");
  const { pagesOffset, present: bits } = file.block("pc.ram");
  const copy = Buffer.from(bytes);
  copy.fill(0, pagesOffset + bits.nextSet(0) * PAGE, pagesOffset + (bits.nextSet(0) + 1) * PAGE);
  writeFileSync(lost, copy);
  using holed = await openSnapshot(lost);
  expect((await verifySnapshot(holed)).presentZeroPages).toBe(1);
  // The last byte of the description is missing: RAM is whole, the machine is not.
  const cut = folder.file("cut.snap");
  writeFileSync(cut, bytes.subarray(0, -1));
  using shorter = await openSnapshot(cut);
  expect(await rejectionOf(verifySnapshot(shorter))).toMatchObject({
    code: "ERR_MULTIFD_STREAM_TRUNCATED",
  });
});

test("parseFileUri() reads QEMU's file names, and rejects offsets QEMU rejects", () => {
  expect(parseFileUri("file:/tmp/a")).toEqual({ path: "/tmp/a", offset: 0 });
  expect(parseFileUri("a,b,offset=0x10")).toEqual({ path: "a,b", offset: 16 });
  expect(parseFileUri("file:a,offset=4k")).toEqual({ path: "a", offset: 4096 });
  expect(parseFileUri("a,offset=1,offset=20M")).toEqual({
    path: "a,offset=1",
    offset: 20 * MIB,
  });
  expect(parseFileUri("a,offset=3G").offset).toBe(3 * 2 ** 30);
  for (const offset of ["0x20M", "", "-1", "1.5", "12X", "9000000000000000000"]) {
    expect(() => parseFileUri(`file:a,offset=${offset}`)).toThrow(RangeError);
  }
  expect(() => parseFileUri("file:")).toThrow(RangeError);
});

test("Snapshots are gone through in turns, however much of them is a hole", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("sparse.snap");
  const block = RamBlock.allocate("pc.ram", 64 * 1024 * MIB);
  {
    await using writer = await createSnapshot({ path, blocks: [block], sync: false });
    await writer.complete();
  }
  using file = await openSnapshot(path);
  const works = [
    (signal: AbortSignal): Promise<unknown> => verifySnapshot(file, { signal }),
    (signal: AbortSignal): Promise<unknown> => runsOf(file, file, { signal }),
    (signal: AbortSignal): Promise<unknown> =>
      extractBlock(file, "pc.ram", folder.file("image"), { signal }),
    (signal: AbortSignal): Promise<unknown> => copySnapshot(file, folder.file("copy"), { signal }),
  ];
  for (const work of works) {
    const controller = new AbortController();
    setImmediate(() => controller.abort());
    expect((await rejectionOf(work(controller.signal))).code).toBe("ERR_MULTIFD_CANCELLED");
  }
});

test("readGuestState() reads what guestState() does, and lets the event loop go on", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("large.snap");
  const devices = new Uint8Array(192 * MIB);
  for (let at = 0; at < devices.byteLength; at += MIB - 1) devices[at] = at;
  const guestState = {
    machine: "none",
    uuid: new Uint8Array(16),
    validateUuid: false,
    ramSectionId: 2,
    early: new Uint8Array(),
    switchoverStart: true,
    devices,
  };
  const blocks = [RamBlock.allocate("pc.ram", PAGE)];
  {
    await using writer = await createSnapshot({ path, blocks, guestState, sync: false });
    await writer.complete();
  }
  using file = await openSnapshot(path);
  let turns = 0;
  const count = (): void => {
    turns++;
    counting = setImmediate(count);
  };
  let counting = setImmediate(count);
  const state = await readGuestState(file);
  clearImmediate(counting);
  expect(turns).toBeGreaterThan(0);
  const { devices: read, ...rest } = state;
  expect(Buffer.from(read.buffer).equals(devices)).toBe(true);
  expect(rest).toMatchObject({ machine: "none", ramSectionId: 2, switchoverStart: true });
  expect(Buffer.from(file.deviceState().buffer).equals(devices)).toBe(true);
  const cancelled = readDeviceState(file, { signal: AbortSignal.abort() });
  expect((await rejectionOf(cancelled)).code).toBe("ERR_MULTIFD_CANCELLED");
});
