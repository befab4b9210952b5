/** Single pages from every kind of file, and from threads that share what was decompressed. */
import { expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { Arena } from "../ffi/arena.ts";
import { PageSource, type SharedPages } from "../lib/snapshot/page_source.ts";
import {
  compressSnapshot,
  createSnapshot,
  openGuest,
  openSnapshot,
  PageBitmap,
  RamBlock,
  writeRecording,
  type Snapshot,
} from "../mod.ts";
import { thrownBy } from "./kit/errors.ts";
import { fillBlock } from "./kit/page_content.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { TestThread } from "./kit/threads.ts";

const MIB = 1 << 20;
const PAGE = 4096;
const RUNNING = { stopping: false };

async function makeFiles(
  folder: TemporaryFolder,
): Promise<{ paths: string[]; blocks: RamBlock[] }> {
  const blocks = [
    RamBlock.allocate("pc.ram", 3 * MIB + 12 * PAGE),
    RamBlock.allocate("vga.vram", MIB),
  ];
  for (const [index, block] of blocks.entries()) fillBlock(block, index);
  const paths = [folder.file("guest.snap"), folder.file("guest.snap.zst")];
  await using writer = await createSnapshot({ path: paths[0]!, blocks, sync: false });
  await writer.write();
  // A stale page: its content stays in the file, its bit is cleared.
  blocks[0]!.view(5 * PAGE, PAGE).fill(0);
  await writer.writeRange("pc.ram", 5, 6);
  await writer.complete();
  using file = await openSnapshot(paths[0]!);
  await compressSnapshot(file, paths[1]!, { level: 1 });
  return { paths, blocks };
}

/** Compares every page, one at a time and in runs, with what was written. */
function expectPages(shared: SharedPages, blocks: readonly RamBlock[]): void {
  using source = new PageSource(shared, RUNNING);
  expect(source.blocks.map(({ idstr }) => idstr)).toEqual(blocks.map(({ idstr }) => idstr));
  const target = new Arena(64 * PAGE);
  for (const [index, block] of blocks.entries()) {
    for (const count of [1, 7, 64]) {
      for (let first = 0; first < block.pages; first += count) {
        const end = Math.min(block.pages, first + count);
        target.u8.fill(0xee);
        source.read(index, first, end, target.address);
        const got = target.u8.subarray(0, (end - first) * PAGE);
        const wanted = block.view(first * PAGE, (end - first) * PAGE);
        expect(Buffer.compare(got, wanted)).toBe(0);
      }
    }
    for (let page = 0; page < block.pages; page++) {
      const isZero = block.view(page * PAGE, PAGE).every((byte) => byte === 0);
      if (!source.has(index, page)) expect(isZero).toBe(true);
      const { start, end } = source.span(index, page);
      expect(start <= page && page < end && end <= block.pages).toBe(true);
    }
  }
}

async function eachFile(work: (file: Snapshot, blocks: RamBlock[]) => Promise<void> | void) {
  using folder = new TemporaryFolder();
  const { paths, blocks } = await makeFiles(folder);
  for (const path of paths) {
    using file = await openSnapshot(path);
    await work(file, blocks);
  }
}

test("PageSource reads any pages of a snapshot, plain or compressed, with absent ones zero", async () => {
  await eachFile((file, blocks) => {
    expectPages(file.sharePages(), blocks);
    expectPages(file.sharePages(1), blocks); // hardly any room for frames
  });
});

test("PageSource reads any pages of a recording, whose holes are zero", async () => {
  using folder = new TemporaryFolder();
  const { paths, blocks } = await makeFiles(folder);
  using file = await openSnapshot(paths[0]!);
  const { statistics } = await file.load();
  const path = folder.file("guest.rec");
  const state = file.guestState();
  await writeRecording(path, { blocks, state, compression: "none", statistics });
  using guest = await openGuest(path);
  expectPages(guest.pages, blocks);
  const [ram] = guest.pages.blocks;
  const present = new PageBitmap(ram!.pages, ram!.present).count();
  expect(present).toBeLessThan(ram!.pages); // it has holes
  truncateSync(path, ram!.pagesOffset + ram!.bytes / 2);
  using source = new PageSource(guest.pages, RUNNING);
  const target = new Arena(PAGE);
  const page = source.blocks[1]!.present.nextSet(0);
  const error = thrownBy(() => source.read(1, page, page + 1, target.address));
  expect(error).toMatchObject({ code: "ERR_MULTIFD_STREAM_TRUNCATED" });
});

test("threads that share the pages of a compressed file decompress each frame once", async () => {
  await eachFile(async (file, blocks) => {
    const pages = file.sharePages();
    const start = new SharedArrayBuffer(4);
    await using threads = new AsyncDisposableStack();
    const readers = [1, 2, 3].map((seed) =>
      threads.use(new TestThread("page_reader", { pages, seed, start })),
    );
    await Bun.sleep(100);
    Atomics.store(new Int32Array(start), 0, 1);
    Atomics.notify(new Int32Array(start), 0);
    const wanted = blocks.map((block) =>
      Uint32Array.from({ length: block.pages }, (_, page) =>
        Bun.hash.crc32(block.view(page * PAGE, PAGE)),
      ),
    );
    for (const reader of readers) expect(await reader.result()).toEqual(wanted);
    if (pages.cache === undefined) return;
    const spans = new Set<string>();
    using source = new PageSource(pages, RUNNING);
    const frames = new Set<number>();
    for (const [index, block] of source.blocks.entries()) {
      for (let page = 0; page < block.pages; page++) {
        if (!source.has(index, page)) continue;
        const { start: first } = source.span(index, page);
        frames.add(block.pagesOffset + first * PAGE);
        spans.add(`${index} ${first}`);
      }
    }
    // A frame that two blocks share has a span in each.
    const decompressed = new Int32Array(pages.cache.buffer)[2];
    expect(decompressed).toBeGreaterThanOrEqual(frames.size - 1);
    expect(decompressed).toBeLessThanOrEqual(spans.size);
  });
});

test("PageSource refuses pages outside a block, and names what a damaged or cut file lacks", async () => {
  await eachFile((file) => {
    using source = new PageSource(file.sharePages(), RUNNING);
    const target = new Arena(PAGE);
    for (const [first, end] of [
      [-1, 1],
      [2, 2],
      [0, 1e9],
    ] as const) {
      expect(() => source.read(0, first, end, target.address)).toThrow(RangeError);
    }
    truncateSync(file.path, 4096);
    const page = source.blocks[0]!.present.nextSet(0);
    const error = thrownBy(() => source.read(0, page, page + 1, target.address));
    expect(error).toMatchObject({ code: "ERR_MULTIFD_STREAM_TRUNCATED" });
    // Nobody waits for a frame that was given up, and the next one to want it has the same error.
    const again = thrownBy(() => source.read(0, page, page + 1, target.address));
    expect(again).toMatchObject({ code: "ERR_MULTIFD_STREAM_TRUNCATED" });
  });
});
