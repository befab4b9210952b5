import { expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { close } from "../ffi/libc.ts";
import { connect, listen, RamBlock } from "../mod.ts";
import { makeMemfd } from "./kit/memfd.ts";

const sharedFolder = "/dev/shm";

/** A file in shared memory whose every page holds its own number, removed at the end. */
function sharedFile(pages: number): Disposable & { readonly path: string } {
  const path = `${sharedFolder}/multifd-test-${process.pid}-${pages}`;
  const fd = openSync(path, "w+");
  for (let page = 0; page < pages; page++) writeSync(fd, new Uint8Array(4096).fill(page + 1));
  closeSync(fd);
  return { path, [Symbol.dispose]: () => unlinkSync(path) };
}

test("RamBlock.allocate() gives zeroed memory of every page size", () => {
  for (const pageSize of [4096, 8192, 16_384, 65_536]) {
    const block = RamBlock.allocate("pc.ram", 4 * pageSize, { pageSize });
    expect(block).toMatchObject({ idstr: "pc.ram", bytes: 4 * pageSize, pages: 4, pageSize });
    expect(block.view(0, block.bytes).every((byte) => byte === 0)).toBe(true);
  }
});

test("RamBlock.allocate() rejects lengths and page sizes that do not go together", () => {
  for (const [bytes, pageSize] of [
    [0, 4096],
    [-4096, 4096],
    [4095, 4096],
    [4096, 8192],
    [NaN, 4096],
    [Infinity, 4096],
    [8192, 2048],
    [8192, 0],
    [131_072, 131_072],
    // More pages than the 32-bit page numbers of the engine reach.
    [2 ** 32 * 4096, 4096],
  ] as const) {
    expect(() => RamBlock.allocate("pc.ram", bytes, { pageSize })).toThrow(RangeError);
  }
});

test("RamBlock ids have 1 to 255 bytes of UTF-8 without NUL", () => {
  expect(RamBlock.allocate("x".repeat(255), 4096).idstr).toHaveLength(255);
  expect(RamBlock.allocate("ä".repeat(127), 4096).idstr).toHaveLength(127);
  for (const idstr of ["", "x".repeat(256), "ä".repeat(128), "a\0b", "\ud800"]) {
    expect(() => RamBlock.allocate(idstr, 4096)).toThrow(RangeError);
  }
});

test("RamBlock.fromBuffer() shares the caller's memory", () => {
  const buffer = new SharedArrayBuffer(8192);
  const block = RamBlock.fromBuffer("pc.ram", buffer);
  block.view(4096, 4096)[0] = 7;
  expect(new Uint8Array(buffer)[4096]).toBe(7);
});

test("RamBlock.fromBuffer() joins several buffers, the last of which may be shorter", () => {
  const buffers = [16_384, 16_384, 4096].map((bytes) => new SharedArrayBuffer(bytes));
  const block = RamBlock.fromBuffer("pc.ram", buffers);
  expect(block.pages).toBe(9);
  for (let page = 0; page < block.pages; page++) block.view(page * 4096, 4096).fill(page + 1);
  expect(buffers.map((buffer) => [...new Set(new Uint8Array(buffer))])).toEqual([
    [1, 2, 3, 4],
    [5, 6, 7, 8],
    [9],
  ]);
  expect([...block.views()].map((view) => view.byteLength)).toEqual([16_384, 16_384, 4096]);
  const { segments } = block;
  expect(block.addressAt(16_384)).toBe(segments[1]?.address ?? 0);
  expect(block.addressAt(36_863)).toBe((segments[2]?.address ?? 0) + 4095);
});

test("RamBlock.fromBuffer() rejects buffers in which a page would lie in two pieces", () => {
  const lists = [
    [],
    [2048, 2048],
    [12_288, 12_288],
    [4096, 8192],
    [8192, 4096, 8192],
    [16_384, 2048],
  ];
  for (const lengths of lists) {
    const buffers = lengths.map((bytes) => new SharedArrayBuffer(bytes));
    expect(() => RamBlock.fromBuffer("pc.ram", buffers)).toThrow(RangeError);
  }
  const halves = [4096, 4096].map((bytes) => new SharedArrayBuffer(bytes));
  expect(() => RamBlock.fromBuffer("pc.ram", halves, { pageSize: 8192 })).toThrow(RangeError);
});

test("RamBlock.view() and addressAt() stay inside the block and its segments", () => {
  const block = RamBlock.fromBuffer(
    "pc.ram",
    [8192, 8192].map((bytes) => new SharedArrayBuffer(bytes)),
  );
  for (const [offset, bytes] of [
    [-1, 1],
    [16_384, 1],
    [0, 0],
    [0, -1],
    [12_288, 4097],
    [4096, 8192],
    [NaN, 1],
    [0, NaN],
  ] as const) {
    expect(() => block.view(offset, bytes)).toThrow(RangeError);
  }
  for (const offset of [-1, 16_384, NaN]) {
    expect(() => block.addressAt(offset)).toThrow(RangeError);
  }
});

test("RamBlock.prefault() leaves the content as it is", () => {
  const block = RamBlock.allocate("pc.ram", 1 << 20, { prefault: true });
  block.view(4096, 4096).fill(9);
  block.prefault();
  block.prefault(false);
  expect(block.view(4096, 4096).every((byte) => byte === 9)).toBe(true);
  // A buffer that does not begin at a page border has fewer whole pages, or none.
  RamBlock.fromBuffer("pc.ram", new SharedArrayBuffer(4096)).prefault();
});

test.skipIf(!existsSync(sharedFolder))(
  "RamBlock.map() sees a shared file without a copy and unmaps it on dispose (needs /dev/shm)",
  () => {
    using file = sharedFile(3);
    const mappings = (): number =>
      readFileSync("/proc/self/maps", "utf8").split(file.path).length - 1;
    const fd = openSync(file.path, "r+");
    {
      using block = RamBlock.map("pc.ram", file.path);
      expect(block.bytes).toBe(3 * 4096);
      expect([...block.views()].flatMap((view) => [...new Set(view)])).toEqual([1, 2, 3]);
      writeSync(fd, new Uint8Array(4096).fill(77), 0, 4096, 4096);
      expect(block.view(4096, 4096).every((byte) => byte === 77)).toBe(true);
      expect(mappings()).toBe(1);
      block[Symbol.dispose]();
    }
    expect(mappings()).toBe(0);
    {
      using block = RamBlock.map("pc.ram", file.path, { writable: true, prefault: true });
      block.view(0, 4096).fill(55);
    }
    expect(readFileSync(file.path)[0]).toBe(55);
    closeSync(fd);
  },
);

test("RamBlock.map() takes a memfd by its path under /proc", () => {
  const fd = makeMemfd();
  expect(fd).toBeGreaterThan(2);
  ftruncateSync(fd, 8192);
  writeSync(fd, new Uint8Array(4096).fill(5), 0, 4096, 4096);
  {
    using block = RamBlock.map("pc.ram", `/proc/self/fd/${fd}`);
    close(fd);
    expect([...block.views()].flatMap((view) => [...new Set(view)])).toEqual([0, 5]);
  }
});

test("RamBlock.map() names the file and the reason when it cannot", () => {
  expect(() => RamBlock.map("pc.ram", "/nonexistent/ram")).toThrow(
    expect.objectContaining({
      code: "ERR_MULTIFD_SYSTEM",
      errno: "ENOENT",
      message: "Cannot map /nonexistent/ram: ENOENT",
    }),
  );
  expect(() => RamBlock.map("pc.ram", "/dev/null")).toThrow("it is a character device, must be");
  expect(() => RamBlock.map("pc.ram", "/dev")).toThrow("it is a directory, must be");
});

test("RamBlock.zeroed ends when the memory is given away to be written to", () => {
  const given: ((block: RamBlock) => unknown)[] = [
    (block) => block.view(0, 1),
    (block) => block.addressAt(0),
    (block) => [...block.views()],
    (block) => block.markWritten(),
  ];
  for (const give of given) {
    const block = RamBlock.allocate("pc.ram", 8192, { prefault: true });
    expect([block.zeroed, block.share().zeroed]).toEqual([true, true]);
    give(block);
    expect([block.zeroed, block.share().zeroed]).toEqual([false, false]);
  }
});

test("RamBlock: memory that has been received into is cleared by the next transfer", async () => {
  const source = RamBlock.allocate("pc.ram", 64 * 4096);
  const target = RamBlock.allocate("pc.ram", 64 * 4096);
  const equal = (block = target): boolean =>
    Buffer.compare(block.view(0, block.bytes), source.view(0, source.bytes)) === 0;
  for (const content of [7, 0]) {
    source.view(0, source.bytes).fill(content);
    await using receiver = await listen({ endpoint: "127.0.0.1:0", blocks: [target] });
    const { endpoint } = receiver;
    await using sender = await connect({ endpoint, blocks: [source] });
    await sender.send();
    await Promise.all([sender.complete(), receiver.complete()]);
    expect(equal()).toBe(true);
  }
});

test("RamBlock: memory that a receiver has allocated is no longer known to be zero", async () => {
  const source = RamBlock.allocate("pc.ram", 64 * 4096);
  await using receiver = await listen({ endpoint: "127.0.0.1:0" });
  await using sender = await connect({ endpoint: receiver.endpoint, blocks: [source] });
  await sender.send();
  await Promise.all([sender.complete(), receiver.complete()]);
  expect(receiver.blocks.map(({ zeroed }) => zeroed)).toEqual([false]);
});
