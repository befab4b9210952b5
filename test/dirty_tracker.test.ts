import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readSync } from "node:fs";
import {
  PageBitmap,
  RamBlock,
  SystemError,
  trackDirtyPages,
  trackDirtyPagesBlocking,
  type DirtyTracker,
} from "../mod.ts";
import { RandomWriters } from "./kit/random_writers.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const BYTES = 8 * 1_048_576;

const probe = await trackDirtyPages(RamBlock.allocate("probe", 8192));
const kernelTracks = probe.method === "write-protect";
if (!kernelTracks) console.log(`write-protect tests skipped: ${probe.reason}`);
probe[Symbol.dispose]();

function pagesOf(bitmap: PageBitmap): number[] {
  return [...bitmap.runs()].flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
}

describe("trackDirtyPages: several threads write at random", () => {
  for (const pageSize of [4096, 65_536]) {
    test(`all methods find the same pages of ${pageSize} bytes`, async () => {
      await using writers = new RandomWriters({ bytes: BYTES, pageSize });
      const block = RamBlock.fromBuffer("pc.ram", writers.buffer, { pageSize });
      await writers.pause();
      using trackers = new DisposableStack();
      const list: DirtyTracker[] = [];
      for (const method of ["compare", "write-protect", "bitmap"] as const) {
        if (method === "write-protect" && !kernelTracks) continue;
        const bitmap = method === "bitmap" ? writers.bitmap : undefined;
        list.push(trackers.use(await trackDirtyPages(block, { method, bitmap, threads: 3 })));
      }
      for (let round = 0; round < 6; round++) {
        const found = list.map(() => new PageBitmap(block.pages));
        await writers.run();
        await Bun.sleep(3);
        // Fetched while all of them write: each may see a page in this fetch or in the next.
        for (const [index, tracker] of list.entries()) {
          if (round % 2 === 0) await tracker.fetch(found[index]!);
          else tracker.fetchBlocking(found[index]!);
        }
        await writers.pause();
        for (const [index, tracker] of list.entries()) await tracker.fetch(found[index]!);
        const [first, ...others] = found.map(pagesOf);
        expect(first!.length).toBeGreaterThan(0);
        for (const other of others) expect(other).toEqual(first!);
      }
      // And nothing is found when nothing was written.
      const quiet = new PageBitmap(block.pages);
      for (const tracker of list) await tracker.fetch(quiet);
      expect(quiet.count()).toBe(0);
    });
  }

  test("exact pages are found while the writers stand still", async () => {
    const block = RamBlock.allocate("pc.ram", 512 * 4096);
    const bitmap = new PageBitmap(block.pages);
    using compare = trackDirtyPagesBlocking(block, { method: "compare", threads: 2 });
    using marked = trackDirtyPagesBlocking(block, { bitmap });
    using automatic = trackDirtyPagesBlocking(block);
    const written = [0, 5, 6, 7, 130, 511];
    for (const page of written) {
      block.view(page * 4096 + 4095, 1)[0] = 1;
      bitmap.set(page);
    }
    for (const tracker of [compare, marked, automatic]) {
      const dirty = new PageBitmap(block.pages);
      tracker.fetchBlocking(dirty);
      expect([tracker.method, pagesOf(dirty)]).toEqual([tracker.method, written]);
    }
  });
});

describe("trackDirtyPages: writes that are no store instruction", () => {
  test("what a system call reads into the block has changed it", async () => {
    const block = RamBlock.allocate("pc.ram", 64 * 4096);
    using tracker = await trackDirtyPages(block);
    const fd = openSync("/dev/urandom", "r");
    try {
      // Whole pages, and a few bytes across the border of two.
      expect(readSync(fd, block.view(4 * 4096, 3 * 4096))).toBe(3 * 4096);
      expect(readSync(fd, block.view(20 * 4096 - 8, 16))).toBe(16);
    } finally {
      closeSync(fd);
    }
    const dirty = new PageBitmap(block.pages);
    await tracker.fetch(dirty);
    expect(pagesOf(dirty)).toEqual([4, 5, 6, 19, 20]);
  });
});

describe("trackDirtyPages: blocks of several pieces", () => {
  for (const method of ["compare", "auto"] as const) {
    test(`pages at all borders are found by ${method}`, async () => {
      const pieces = Array.from({ length: 4 }, () => new SharedArrayBuffer(65_536));
      const block = RamBlock.fromBuffer("pc.ram", pieces, { pageSize: 8192 });
      using tracker = await trackDirtyPages(block, { method });
      expect(tracker.method).toBe(method === "auto" && kernelTracks ? "write-protect" : "compare");
      const written = [0, 7, 8, 15, 24, 31];
      for (const page of written) block.view(page * 8192 + 8191, 1)[0] = 1;
      const dirty = new PageBitmap(block.pages);
      await tracker.fetch(dirty);
      expect(pagesOf(dirty)).toEqual(written);
    });
  }
});

describe("trackDirtyPages: choice of the method", () => {
  test("write protection is taken where the kernel has it, else comparison with a reason", () => {
    using tracker = trackDirtyPagesBlocking(RamBlock.allocate("pc.ram", 8192));
    expect(tracker.method).toBe(kernelTracks ? "write-protect" : "compare");
    if (kernelTracks) expect(tracker.reason).toBeUndefined();
    else expect(tracker.reason).toMatch(/kernel/);
  });

  test("mapped memory is compared, since others may write to it unseen", async () => {
    using folder = new TemporaryFolder();
    const path = folder.file("mapped");
    await Bun.write(path, new Uint8Array(16_384));
    using block = RamBlock.map("pc.ram", path);
    using tracker = await trackDirtyPages(block);
    expect(tracker.method).toBe("compare");
    expect(tracker.reason).toContain("mapped memory");
    const bytes = new Uint8Array(16_384);
    bytes[8192] = 1;
    await Bun.write(path, bytes);
    const dirty = new PageBitmap(block.pages);
    await tracker.fetch(dirty);
    expect(pagesOf(dirty)).toEqual([2]);
    await expect(trackDirtyPages(block, { method: "write-protect" })).rejects.toThrow(SystemError);
  });

  test("a block that is already tracked by the kernel is compared", () => {
    const block = RamBlock.allocate("pc.ram", 1_048_576);
    using first = trackDirtyPagesBlocking(block);
    using second = trackDirtyPagesBlocking(block);
    expect(second.method).toBe("compare");
    if (first.method === "write-protect") expect(second.reason).toContain("EBUSY");
  });

  test("tracking ends with its tracker, and can begin again", () => {
    const block = RamBlock.allocate("pc.ram", 1_048_576);
    for (let turn = 0; turn < 3; turn++) {
      using tracker = trackDirtyPagesBlocking(block);
      expect(tracker.method).toBe(kernelTracks ? "write-protect" : "compare");
      block.view(4096 * turn, 1)[0] = turn + 1;
      const dirty = new PageBitmap(block.pages);
      tracker.fetchBlocking(dirty);
      expect(pagesOf(dirty)).toEqual([turn]);
    }
  });

  test("options that cannot work are refused", async () => {
    const block = RamBlock.allocate("pc.ram", 8192);
    await expect(trackDirtyPages(block, { method: "bitmap" })).rejects.toThrow(TypeError);
    await expect(trackDirtyPages(block, { bitmap: new PageBitmap(3) })).rejects.toThrow(TypeError);
    await expect(trackDirtyPages(block, { threads: 0 })).rejects.toThrow(RangeError);
    using tracker = await trackDirtyPages(block);
    await expect(tracker.fetch(new PageBitmap(3))).rejects.toThrow(RangeError);
  });
});
