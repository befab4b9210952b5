import { expect, test } from "bun:test";
import { assert as check, nat, property } from "fast-check";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
  writeSync,
  truncateSync,
  unlinkSync,
} from "node:fs";
import { createSnapshot, openSnapshot, PageBitmap, RamBlock, StreamError } from "../mod.ts";
import { rejectionOf, thrownBy } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { indexOf } from "./kit/snapshot_index.ts";
import { saveSnapshot } from "./kit/snapshots.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1 << 20;
const PAGE = 4096;

/** A block in which exactly the given pages are not zero. */
function blockWith(idstr: string, pages: number, present: Iterable<number>): RamBlock {
  const block = RamBlock.allocate(idstr, pages * PAGE);
  for (const page of present) fillPage(block.view(page * PAGE, PAGE), "random", page);
  return block;
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

/** A descriptor of this process that is open on a file of that name. */
function descriptorOf(name: string): string {
  const found = readdirSync("/proc/self/fd").find((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).endsWith(name);
    } catch {
      return false; // closed meanwhile
    }
  });
  if (found === undefined) throw new Error(`No descriptor of ${name}`);
  return found;
}

/** Pages in which `blocks` and what the file gives differ. */
async function differences(
  path: string,
  blocks: readonly RamBlock[],
  channels: number,
  offset = 0,
): Promise<number[]> {
  using file = await openSnapshot(path, { offset });
  const loaded = await file.load({ channels });
  expect(loaded.blocks.map(({ idstr, bytes }) => [idstr, bytes])).toEqual(
    blocks.map(({ idstr, bytes }) => [idstr, bytes]),
  );
  return blocks.flatMap((block, index) => differingPages(block, loaded.blocks[index] ?? block));
}

test("createSnapshot() and load() keep every shape of bitmap, at any two channel counts", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("shapes.snap");
  const shapes: [string, number, number[]][] = [
    ["first page", 1024, [0]],
    ["last page", 1024, [1023]],
    ["all zero", 512, []],
    ["all pages", 777, range(0, 777)], // runs above 1 MiB, not whole 64-page words
    ["one page", 1, [0]],
    ["65 pages", 65, [0, 63, 64]],
    ["across 1 MiB", 600, range(200, 300)],
    ["every other", 300, range(0, 150).map((page) => 2 * page)],
  ];
  const blocks = shapes.map(([name, pages, present]) => blockWith(name, pages, present));
  for (const [writers, readers] of [
    [1, 4],
    [3, 1],
    [2, 5],
  ] as const) {
    await saveSnapshot({ path, blocks, channels: writers });
    using file = await openSnapshot(path);
    for (const [index, [, , present]] of shapes.entries()) {
      const runs = [...(file.blocks[index]?.present.runs() ?? [])];
      expect(runs.flatMap(({ start, end }) => range(start, end))).toEqual(present);
    }
    expect(await differences(path, blocks, readers)).toEqual([]);
  }
  // Zero pages take no room: what is present are 1142 pages, the blocks have 4302.
  const present = shapes.reduce((sum, [, , pages]) => sum + pages.length, 0);
  expect(statSync(path).blocks * 512).toBeLessThan(present * PAGE + 2 * MIB);
});

test("createSnapshot() overwrites pages of later rounds in place, and zero clears their bits", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("rounds.snap");
  const block = blockWith("pc.ram", 1000, range(0, 1000));
  const other = blockWith("vga.vram", 10, [3]);
  await using writer = await createSnapshot({ path, blocks: [block, other], sync: false });
  await writer.write();
  block.view(5 * PAGE, 3 * PAGE).fill(0);
  fillPage(block.view(999 * PAGE, PAGE), "text", 1);
  fillPage(block.view(500 * PAGE, PAGE), "text", 2);
  fillPage(other.view(9 * PAGE, PAGE), "late", 3);
  const dirty = new PageBitmap(1000);
  dirty.setRange(5, 8);
  dirty.set(999);
  await writer.writeBitmap(block, dirty);
  expect(dirty.count()).toBe(0);
  await writer.writeRange("pc.ram", 500, 501);
  await writer.writeRange(other, 9, 10);
  const { normalPages, zeroPages, rounds } = await writer.complete();
  expect([normalPages, zeroPages, rounds]).toEqual([1000 + 1 + 1 + 1 + 1, 9 + 3, 4]);

  using file = await openSnapshot(path);
  const runs = file.blocks.map(({ present }) => [...present.runs()]);
  expect(runs).toEqual([
    [
      { start: 0, end: 5 },
      { start: 8, end: 1000 },
    ],
    [
      { start: 3, end: 4 },
      { start: 9, end: 10 },
    ],
  ]);
  expect(await differences(path, [block, other], 3)).toEqual([]);
});

test("createSnapshot() writes zero pages only without zero-page detection", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("none.snap");
  const block = blockWith("pc.ram", 512, [7]);
  await saveSnapshot({ path, blocks: [block], zeroPageDetection: "none" });
  using file = await openSnapshot(path);
  expect(file.block("pc.ram").present.count()).toBe(512);
  expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(512 * PAGE);
});

test("createSnapshot() with an offset leaves the bytes in front untouched", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("offset.snap");
  const offset = 0x1234;
  const front = new Uint8Array(8 * MIB).fill(0xa5);
  writeFileSync(path, front);
  const block = blockWith("pc.ram", 600, range(100, 500));
  await saveSnapshot({ path, blocks: [block], offset, sync: true });
  const bytes = readFileSync(path);
  expect(bytes.subarray(0, offset).equals(front.subarray(0, offset))).toBe(true);
  expect(bytes.subarray(offset, offset + 4).toString("latin1")).toBe("QEVM");
  expect(await differences(path, [block], 2, offset)).toEqual([]);
  expect((await rejectionOf(openSnapshot(path))).code).toBe("ERR_MULTIFD_STREAM_MAGIC");
});

test("createSnapshot() and load() serve every page size and caller's memory of small segments", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("sizes.snap");
  for (const pageSize of [8192, 16_384, 65_536]) {
    const buffers = range(0, 5).map(() => new SharedArrayBuffer(2 * pageSize));
    const block = RamBlock.fromBuffer("pc.ram", buffers, { pageSize });
    fillBlock(block, pageSize);
    await saveSnapshot({ path, blocks: [block], channels: 3 });
    expect(await differences(path, [block], 2)).toEqual([]);
    // The same memory as target, with pages that are zero in the file and not in memory.
    const copy = RamBlock.allocate("pc.ram", block.bytes, { pageSize });
    fillBlock(copy, 99);
    using file = await openSnapshot(path);
    await file.load({ blocks: [copy] });
    expect(differingPages(block, copy)).toEqual([]);
  }
});

test("Snapshot.readPage() and readRange() read single pages and odd ranges", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("random.snap");
  const block = RamBlock.allocate("pc.ram", 200 * PAGE);
  fillBlock(block, 3);
  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  const expected = block.view(0, block.bytes);
  for (const page of [0, 1, 77, 199]) {
    const bytes = expected.subarray(page * PAGE, (page + 1) * PAGE);
    expect(Buffer.compare(file.readPage("pc.ram", page), bytes)).toBe(0);
    const larger = new Uint8Array(2 * PAGE).fill(9);
    expect(Buffer.compare(file.readPage("pc.ram", page, larger), bytes)).toBe(0);
    expect(larger[PAGE]).toBe(9);
  }
  check(
    property(nat(block.bytes - 1), nat(20 * PAGE), (offset, length) => {
      const target = new Uint8Array(Math.min(length, block.bytes - offset)).fill(7);
      file.readRange("pc.ram", offset, target);
      const wanted = expected.subarray(offset, offset + target.byteLength);
      return Buffer.compare(target, wanted) === 0;
    }),
    { numRuns: 200 },
  );
  expect(() => file.readPage("pc.ram", 200)).toThrow(RangeError);
  expect(() => file.readPage("pc.ram", -1)).toThrow(RangeError);
  expect(() => file.readPage("pc.ram", 0, new Uint8Array(PAGE - 1))).toThrow(RangeError);
  expect(() => file.readPage("pc.bios", 0)).toThrow(RangeError);
});

test("createSnapshot() and load() carry a sparse block of 6 GiB", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("large.snap");
  const bytes = 6 * 2 ** 30;
  const marks = [0, 4095 * PAGE, 2 ** 32 - PAGE, 2 ** 32, bytes - PAGE];
  const block = RamBlock.allocate("pc.ram", bytes, { hugePages: false });
  for (const at of marks) fillPage(block.view(at, PAGE), "random", at / PAGE);
  await using writer = await createSnapshot({ path, blocks: [block], channels: 2 });
  for (const at of marks) await writer.writeRange(block, at / PAGE, at / PAGE + 1);
  await writer.complete();
  expect(statSync(path).size).toBeGreaterThan(bytes);
  expect(statSync(path).blocks * 512).toBeLessThan(4 * MIB);
  using file = await openSnapshot(path);
  const loaded = await file.load({ channels: 3 });
  for (const at of marks) {
    const view = loaded.blocks[0]?.view(at, PAGE) ?? new Uint8Array();
    expect(Buffer.compare(view, block.view(at, PAGE))).toBe(0);
    expect(Buffer.compare(file.readPage("pc.ram", at / PAGE), view)).toBe(0);
  }
});

test("createSnapshot() and load() bypass the page cache, or say that they cannot", async () => {
  for (const parent of [undefined, "/dev/shm"]) {
    using folder = new TemporaryFolder(parent);
    const path = folder.file("direct.snap");
    const block = RamBlock.allocate("pc.ram", 5 * MIB);
    fillBlock(block, 4);
    const notices: string[] = [];
    const direct = { directIo: true, onNotice: (notice: string) => notices.push(notice) };
    await saveSnapshot({ path, blocks: [block], channels: 2, sync: true, ...direct });
    using file = await openSnapshot(path);
    const loaded = await file.load({ channels: 2, ...direct });
    expect(differingPages(block, loaded.blocks[0] ?? block)).toEqual([]);
    // Old kernels have no O_DIRECT on tmpfs; then both directions say so, once each.
    if (notices.length > 0) expect(notices).toHaveLength(2);
    for (const notice of notices) expect(notice).toStartWith("Cannot use direct I/O for");
  }
});

test("load() falls back to buffered reads where alignment rules O_DIRECT out", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("unaligned.snap");
  const block = blockWith("pc.ram", 300, range(0, 300));
  await saveSnapshot({ path, blocks: [block] });
  // Memory that begins in the middle of a page: the kernel refuses it on every file system.
  const buffer = new SharedArrayBuffer(300 * PAGE + 4096);
  const whole = RamBlock.fromBuffer("pc.ram", buffer);
  const shifted = whole.segments[0]!;
  const target = RamBlock.attach({
    idstr: "pc.ram",
    pageSize: PAGE,
    zeroed: false,
    segments: [{ address: shifted.address + 8, bytes: 300 * PAGE, buffer: undefined }],
  });
  using file = await openSnapshot(path);
  await file.load({ blocks: [target], directIo: true });
  expect(differingPages(block, target)).toEqual([]);
});

test("SnapshotWriter leaves nothing behind when it is not completed, and the old file in place", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = blockWith("pc.ram", 100, [1]);
  {
    await using writer = await createSnapshot({ path, blocks: [block] });
    await writer.write();
    expect(existsSync(path)).toBe(false);
  }
  expect(readdirSync(folder.path)).toEqual([]);
  await saveSnapshot({ path, blocks: [block], sync: true });
  const before = readFileSync(path);
  {
    await using writer = await createSnapshot({ path, blocks: [blockWith("x", 9, [2])] });
    await writer.write();
  }
  expect(readFileSync(path).equals(before)).toBe(true);
  expect(readdirSync(folder.path)).toEqual(["guest.snap"]);
});

test("SnapshotWriter rejects what comes after its end, and calls that make no sense", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = blockWith("pc.ram", 100, [1]);
  const writer = await createSnapshot({ path, blocks: [block], sync: false });
  await expect(writer.writeRange("pc.ram", 50, 101)).rejects.toThrow(RangeError);
  await expect(writer.writeRange("pc.bios", 0, 1)).rejects.toThrow(RangeError);
  await expect(writer.writeBitmap("pc.ram", new PageBitmap(99))).rejects.toThrow(RangeError);
  await writer.write();
  await writer.complete();
  await expect(writer.write()).rejects.toThrow(TypeError);
  await expect(writer.complete()).rejects.toThrow(TypeError);
  await writer[Symbol.asyncDispose]();
  for (const options of [
    { blocks: [] },
    { blocks: [block, block] },
    { channels: 0 },
    { channels: 256 },
    { offset: -1 },
    { blocks: [block, RamBlock.allocate("large", 65_536, { pageSize: 65_536 })] },
  ]) {
    const made = createSnapshot({ path, blocks: [block], ...options });
    await expect(made).rejects.toThrow(RangeError);
  }
  const missing = createSnapshot({ path: folder.file("no/where"), blocks: [block] });
  expect(await rejectionOf(missing)).toMatchObject({ errno: "ENOENT" });
});

test("SnapshotWriter and load() end within a second when cancelled, and leave no file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 64 * MIB);
  fillBlock(block, 1);
  const abort = new AbortController();
  const writer = await createSnapshot({ path, blocks: [block], signal: abort.signal });
  const round = writer.write();
  abort.abort(new Error("enough"));
  const start = performance.now();
  expect(await rejectionOf(round)).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
  expect(await rejectionOf(writer.write())).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
  await writer[Symbol.asyncDispose]();
  expect(performance.now() - start).toBeLessThan(5000);
  expect(readdirSync(folder.path)).toEqual([]);

  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  const load = file.load({ signal: AbortSignal.abort(new Error("no")) });
  expect(await rejectionOf(load)).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
});

test("prepareLoad() has memory and threads ready, and load() fills the memory", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 24 * MIB);
  fillBlock(block, 3);
  await saveSnapshot({ path, blocks: [block] });
  for (const directIo of [false, true]) {
    using file = await openSnapshot(path);
    await using prepared = await file.prepareLoad({ channels: 3, directIo, prefault: true });
    const [memory] = prepared.blocks;
    expect(memory!.view(0, PAGE).every((byte) => byte === 0)).toBe(true);
    const { blocks, statistics } = await prepared.load();
    expect(blocks).toEqual(prepared.blocks);
    expect(differingPages(block, memory!)).toEqual([]);
    expect(statistics.normalPages + statistics.zeroPages).toBe(block.pages);
  }
});

test("prepareLoad() can be given up or cancelled, and needs no name of the file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 4 * MIB);
  fillBlock(block, 4);
  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  const prepared = await file.prepareLoad({ channels: 2 });
  await prepared[Symbol.asyncDispose]();
  expect(await rejectionOf(prepared.load())).toMatchObject({ code: "ERR_MULTIFD_STOPPED" });

  const abort = new AbortController();
  await using cancelled = await file.prepareLoad({ channels: 2, signal: abort.signal });
  abort.abort(new Error("enough"));
  expect(await rejectionOf(cancelled.load())).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
  const late = file.prepareLoad({ channels: 2, signal: abort.signal });
  expect(await rejectionOf(late)).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });

  unlinkSync(path); // the file is open here, which is all that its channels need
  const { blocks } = await file.load({ channels: 2, directIo: true });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
  truncateSync(`/proc/self/fd/${descriptorOf("guest.snap (deleted)")}`, 2 * MIB);
  expect(await rejectionOf(file.load({ channels: 2 }))).toMatchObject({
    code: "ERR_MULTIFD_STREAM_TRUNCATED",
  });
});

test("openSnapshot() refuses a file cut off anywhere, and load() never writes out of range", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("whole.snap");
  const cut = folder.file("cut.snap");
  const block = blockWith("pc.ram", 300, range(10, 280));
  const second = blockWith("vga.vram", 5, [4]);
  await saveSnapshot({ path, blocks: [block, second] });
  using whole = await openSnapshot(path);
  const { deviceStateOffset, fileBytes, blocks } = whole.index;
  const borders = blocks.flatMap((region) => [
    region.bitmapOffset - 28,
    region.bitmapOffset,
    region.bitmapOffset + 8,
    region.pagesOffset,
    region.pagesOffset + region.bytes,
  ]);
  const lengths = new Set([0, 3, 4, 8, 9, 20, 70, ...borders, deviceStateOffset - 1]);
  for (const border of borders) for (const delta of [-1, 1]) lengths.add(border + delta);
  const bytes = readFileSync(path);
  for (const length of lengths) {
    writeFileSync(cut, bytes.subarray(0, length));
    const error = await rejectionOf(openSnapshot(cut));
    expect(error).toBeInstanceOf(StreamError);
    expect(error.peer).toBe(cut);
  }
  // Cut while it is open: the pages that are gone are an error and not zeros.
  writeFileSync(cut, bytes);
  using file = await openSnapshot(cut);
  truncateSync(cut, (blocks[0]?.pagesOffset ?? 0) + 20 * PAGE);
  expect(await rejectionOf(file.load())).toMatchObject({
    code: "ERR_MULTIFD_STREAM_TRUNCATED",
    peer: cut,
  });
  expect(thrownBy(() => file.readPage("pc.ram", 30)).code).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
  expect(fileBytes).toBe(bytes.byteLength);
});

test("openSnapshot() survives any flipped bit outside the pages", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("flipped.snap");
  const block = blockWith("pc.ram", 70, range(0, 40));
  const guard = 16 * PAGE;
  await saveSnapshot({ path, blocks: [block] });
  const bytes = readFileSync(path);
  const { bitmapOffset, pagesOffset } = openOnce(path);
  // Everything in front of the padding, and everything behind the pages.
  const places = [
    ...range(0, bitmapOffset + 16),
    ...range(pagesOffset + block.bytes, bytes.byteLength),
  ];
  const fd = openSync(path, "r+");
  try {
    for (const at of places) {
      for (const bit of at < bitmapOffset ? [0, 3, 7] : range(0, 8)) {
        writeSync(fd, Uint8Array.of((bytes[at] ?? 0) ^ (1 << bit)), 0, 1, at);
        try {
          for (const region of indexOf(path).blocks) {
            expect(region.pagesOffset + region.bytes).toBeLessThanOrEqual(bytes.byteLength);
            expect(region.present.nextSet(0)).toBeLessThanOrEqual(region.pages);
          }
        } catch (error) {
          expect(error).toHaveProperty("code", expect.stringMatching(/^ERR_MULTIFD_/));
        }
        writeSync(fd, bytes, at, 1, at);
      }
    }
  } finally {
    closeSync(fd);
  }

  // A bit of the bitmap decides over a page of the block and nothing else.
  const memory = new SharedArrayBuffer(block.bytes + 2 * guard);
  new Uint8Array(memory).fill(0x55);
  const whole = RamBlock.fromBuffer("whole", memory);
  const target = RamBlock.attach({
    idstr: "pc.ram",
    pageSize: PAGE,
    zeroed: false,
    segments: [{ address: whole.addressAt(guard), bytes: block.bytes, buffer: undefined }],
  });
  const changed = Buffer.from(bytes);
  changed[bitmapOffset + 8] = 0x3f; // pages 64 to 69, the last of the block
  writeFileSync(path, changed);
  using file = await openSnapshot(path);
  await file.load({ blocks: [target] });
  expect(differingPages(block, target)).toEqual([]);
  for (const view of [whole.view(0, guard), whole.view(guard + block.bytes, guard)]) {
    expect(view.every((byte) => byte === 0x55)).toBe(true);
  }
  changed[bitmapOffset + 8] = 0x40; // page 70, which the block has not
  writeFileSync(path, changed);
  expect((await rejectionOf(openSnapshot(path))).code).toBe("ERR_MULTIFD_STREAM_BITMAP");
});

test("openSnapshot() refuses streams of another kind and RAM records among the sections", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("other.snap");
  await saveSnapshot({ path, blocks: [blockWith("pc.ram", 1, [0])] });
  const bytes = readFileSync(path);
  const code = (change: (copy: Buffer) => void): string => {
    const copy = Buffer.from(bytes);
    change(copy);
    writeFileSync(path, copy);
    return thrownBy(() => indexOf(path)).code;
  };
  const capability = bytes.indexOf("mapped-ram");
  expect(code((copy) => copy.write("mapped-rom", capability))).toBe(
    "ERR_MULTIFD_STREAM_CAPABILITY",
  );
  // The record behind the pages is the end record of the setup section.
  const { pagesOffset } = openOnceFrom(bytes, path);
  const record = pagesOffset + PAGE + 6;
  for (const flags of [0x022, 0x008, 0x040, 0x080, 0x200]) {
    expect(code((copy) => copy.writeUInt16BE(flags, record))).toMatch(/^ERR_MULTIFD_STREAM_RECORD/);
  }
});

/** Where the first block of a file lies. */
function openOnce(path: string): { bitmapOffset: number; pagesOffset: number } {
  return indexOf(path).blocks[0]!;
}

function openOnceFrom(bytes: Uint8Array, path: string): { pagesOffset: number } {
  writeFileSync(path, bytes);
  return openOnce(path);
}
