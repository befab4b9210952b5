import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { Arena } from "../ffi/arena.ts";
import {
  decodeFooter,
  FOOTER_BYTES,
  SeekTable,
  SeekTableWriter,
} from "../lib/snapshot/seek_table.ts";
import { readSnapshotSource } from "../lib/snapshot/snapshot_source.ts";
import { openRegularFile } from "../lib/storage/opened_file.ts";
import { compressSnapshot, createSnapshot, openSnapshot, RamBlock, StreamError } from "../mod.ts";
import { rejectionOf, thrownBy } from "./kit/errors.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { indexOf } from "./kit/snapshot_index.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1 << 20;
const PAGE = 4096;

/** A snapshot of two blocks and its compressed form. */
async function makePair(
  folder: TemporaryFolder,
): Promise<{ plain: string; compressed: string; blocks: RamBlock[] }> {
  const blocks = [
    RamBlock.allocate("pc.ram", 3 * MIB + 12 * PAGE),
    RamBlock.allocate("vga.vram", MIB),
  ];
  for (const [index, block] of blocks.entries()) fillBlock(block, index);
  blocks[0]?.view(MIB, MIB).fill(0); // whole frames of absent pages
  const [plain, compressed] = [folder.file("guest.snap"), folder.file("guest.snap.zst")];
  await using writer = await createSnapshot({ path: plain, blocks, sync: false });
  await writer.write();
  // A stale page: its content stays in the file, its bit is cleared.
  blocks[0]?.view(5 * PAGE, PAGE).fill(0);
  await writer.writeRange("pc.ram", 5, 6);
  await writer.complete();
  using file = await openSnapshot(plain);
  await compressSnapshot(file, compressed, { level: 1 });
  return { plain, compressed, blocks };
}

test("compressSnapshot() makes a file that is read like the original, page by page and whole", async () => {
  using folder = new TemporaryFolder();
  const { plain, compressed, blocks } = await makePair(folder);
  using file = await openSnapshot(plain);
  using small = await openSnapshot(compressed);
  expect([file.compressed, small.compressed]).toEqual([false, true]);
  expect(statSync(compressed).size).toBeLessThan(statSync(plain).blocks * 512);
  expect(small.deviceState()).toEqual(file.deviceState());
  for (const channels of [1, 3]) {
    const loaded = await small.load({ channels });
    const different = blocks.flatMap((block, index) =>
      differingPages(block, loaded.blocks[index] ?? block),
    );
    expect(different).toEqual([]);
  }
  for (const page of [0, 5, 63, 64, 300, 779]) {
    const expected = blocks[0]?.view(page * PAGE, PAGE) ?? new Uint8Array();
    expect(Buffer.compare(small.readPage("pc.ram", page), expected)).toBe(0);
  }
  const target = new Uint8Array(700_000);
  small.readRange("pc.ram", 123_457, target);
  const expected = blocks[0]?.view(123_457, 700_000) ?? new Uint8Array();
  expect(Buffer.compare(target, expected)).toBe(0);
});

test("compressSnapshot() makes a file that zstd itself decompresses to a snapshot", async () => {
  using folder = new TemporaryFolder();
  const { plain, compressed, blocks } = await makePair(folder);
  const restored = folder.file("restored.snap");
  // Bun's zstd is the reference implementation; it takes frame after frame and skips the table.
  writeFileSync(restored, Bun.zstdDecompressSync(readFileSync(compressed)));
  expect(statSync(restored).size).toBe(statSync(plain).size);
  using file = await openSnapshot(restored);
  const loaded = await file.load();
  expect(loaded.blocks.flatMap((block, index) => differingPages(block, blocks[index]!))).toEqual(
    [],
  );
  // What an absent page had left at its place does not come back.
  const stale = new Uint8Array(PAGE).fill(1);
  file.readFile(file.block("pc.ram").pagesOffset + 5 * PAGE, stale);
  expect(stale.every((byte) => byte === 0)).toBe(true);
});

test("openSnapshot() refuses compressed files that are cut off or have damaged tables", async () => {
  using folder = new TemporaryFolder();
  const { compressed } = await makePair(folder);
  const bytes = readFileSync(compressed);
  const broken = folder.file("broken.zst");
  const code = (content: Uint8Array): string => {
    writeFileSync(broken, content);
    const error = thrownBy(() => indexOf(broken));
    expect(error).toBeInstanceOf(StreamError);
    return error.code;
  };
  for (const length of [4, 8, 9, 100, bytes.byteLength >> 1, bytes.byteLength - 1]) {
    expect(code(bytes.subarray(0, length))).toMatch(/_(SEEK_TABLE|TRUNCATED)$/);
  }
  const { tableBytes, frames } = decodeFooter(bytes.subarray(-FOOTER_BYTES), bytes.byteLength);
  const table = bytes.byteLength - tableBytes;
  const changes: [number, number][] = [
    [0, 1], // not a skippable frame
    [4, 1], // its length
    [8, 1], // a frame longer than it is
    [8 + 12 + 7, 0xff], // content of 4 GiB
    [tableBytes - 9, frames + 1],
    [tableBytes - 9 + 3, 0xff], // billions of frames
    [tableBytes - 5, 0xfc], // unknown flags
  ];
  for (const [at, value] of changes) {
    const copy = Buffer.from(bytes);
    copy[table + at] = ((copy[table + at] ?? 0) + value) & 0xff;
    expect([at, code(copy)]).toEqual([at, "ERR_MULTIFD_STREAM_SEEK_TABLE"]);
  }
});

test("a compressed source notices damaged frames, wrong lengths and wrong checksums, and goes on", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("frames.zst");
  const contents = [1, 2, 3].map((value) => new Uint8Array(10_000 * value).fill(value));
  const frames = contents.map((content) => Bun.zstdCompressSync(content));
  const write = (
    change: (frame: Buffer) => void,
    bytes = contents[1]!.byteLength,
    checksum = 0,
  ): void => {
    const writer = new SeekTableWriter();
    const copies = frames.map((frame) => Buffer.from(frame));
    change(copies[1]!);
    for (const [index, copy] of copies.entries()) {
      const content = contents[index]!;
      const sum = Number(Bun.hash.xxHash64(content, 0n) & 0xffff_ffffn);
      if (index === 1) writer.add(copy.byteLength, bytes, sum ^ checksum);
      else writer.add(copy.byteLength, content.byteLength, sum);
    }
    writeFileSync(path, Buffer.concat([...copies, writer.encode()]));
  };
  const arena = new Arena(100_000);
  const readMiddle = (): string => {
    using source = readSnapshotSource(openRegularFile("Cannot open", path));
    let code = "";
    try {
      source.read(arena.address, source.bytes - 40_000, 10_000);
    } catch (error) {
      expect(error).toBeInstanceOf(StreamError);
      code = (error as StreamError).code;
    }
    // The frames beside it are whole, and a failed one leaves no trace.
    source.read(arena.address, 10_000, 0);
    expect(arena.u8.subarray(0, 10_000).every((byte) => byte === 1)).toBe(true);
    source.read(arena.address, 5, source.bytes - 5);
    expect([...arena.u8.subarray(0, 5)]).toEqual([3, 3, 3, 3, 3]);
    return code;
  };
  write(() => {});
  expect(readMiddle()).toBe("");
  write((frame) => frame.fill(0xff, 8, 14));
  expect(readMiddle()).toMatch(/_(FRAME|CHECKSUM)$/);
  write((frame) => frame.fill(0, 0, 4));
  expect(readMiddle()).toBe("ERR_MULTIFD_STREAM_FRAME");
  write(() => {}, 20_001);
  expect(readMiddle()).toBe("ERR_MULTIFD_STREAM_FRAME");
  write(() => {}, 19_999);
  expect(readMiddle()).toBe("ERR_MULTIFD_STREAM_FRAME");
  write(() => {}, 20_000, 1);
  expect(readMiddle()).toBe("ERR_MULTIFD_STREAM_CHECKSUM");
});

test("SeekTable finds the frame of every byte, over empty frames too", () => {
  const writer = new SeekTableWriter();
  const lengths = [5, 0, 1, 7];
  for (const length of lengths) writer.add(20, length, length);
  const bytes = writer.encode();
  const table = SeekTable.read(
    (offset, length) => bytes.subarray(offset - 80, offset - 80 + length),
    80 + bytes.byteLength,
  );
  expect(table.bytes).toBe(13);
  const frames = Array.from({ length: 13 }, (_, offset) => table.indexAt(offset));
  expect(frames).toEqual([0, 0, 0, 0, 0, 2, 3, 3, 3, 3, 3, 3, 3]);
  expect(table.frame(3)).toEqual({
    fileOffset: 60,
    fileBytes: 20,
    offset: 6,
    bytes: 7,
    checksum: 7,
  });
});

test("compressSnapshot() can be cancelled, refuses bad levels, and leaves nothing then", async () => {
  using folder = new TemporaryFolder();
  const { plain } = await makePair(folder);
  using file = await openSnapshot(plain);
  const output = folder.file("new.zst");
  const signal = AbortSignal.abort(new Error("no"));
  expect(await rejectionOf(compressSnapshot(file, output, { signal }))).toMatchObject({
    code: "ERR_MULTIFD_CANCELLED",
  });
  const bad = compressSnapshot(file, output, { level: 0 });
  await expect(bad).rejects.toThrow(RangeError);
  expect(() => closeSync(openSync(output, "r"))).toThrow("ENOENT");
});
