import { expect, test } from "bun:test";
import { open, readdir, readlink, stat, symlink, truncate } from "node:fs/promises";
import { array, assert, asyncProperty, constantFrom, nat, record } from "fast-check";
import { ImageReader } from "../lib/storage/image_file.ts";
import { CancelledError, RamBlock } from "../mod.ts";
import { filesEqual, makeImage } from "./kit/example_program.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { rejectionOf } from "./kit/errors.ts";
import { outputOf } from "./setup/command.ts";

const MIB = 1 << 20;

test("RamBlock.fromFile() and toFile() keep every byte, whatever is data and whatever is hole", async () => {
  using directory = new TemporaryFolder();
  const source = directory.file("source");
  const copy = directory.file("copy");
  const pageSizes = constantFrom(4096, 8192, 16_384, 65_536);
  const writes = array(record({ page: nat(2063), value: nat(255) }), { maxLength: 20 });
  await assert(
    asyncProperty(pageSizes, writes, async (pageSize, pages) => {
      // More than a chunk of 8 MiB, so that a border is crossed too.
      const bytes = 2064 * 4096;
      {
        await using file = await open(source, "w");
        await file.truncate(bytes);
        for (const { page, value } of pages) {
          await file.write(Buffer.alloc(4096, value), 0, 4096, page * 4096);
        }
      }
      const block = await RamBlock.fromFile("pc.ram", source, { pageSize });
      expect(block).toMatchObject({ idstr: "pc.ram", bytes, pageSize });
      if (pages.length > 0) expect(block.zeroed).toBe(false);
      await block.toFile(copy);
      expect(await filesEqual(source, copy)).toBe(true);
      // The file system's own notes about many pieces count as well.
      const notes = 16_384;
      const data = pages.filter(({ value }) => value !== 0).length * pageSize;
      expect((await stat(copy)).blocks * 512).toBeLessThanOrEqual(data + notes);
    }),
    { numRuns: 20 },
  );
});

test("RamBlock.fromFile() reads a file across segments, past 1 GiB, without touching its holes", async () => {
  using directory = new TemporaryFolder();
  const source = directory.file("large");
  const copy = directory.file("copy");
  const border = 1024 * MIB;
  {
    await using file = await open(source, "w");
    await file.truncate(border + 64 * MIB);
    await file.write(Buffer.from("before"), 0, 6, 0);
    await file.write(Buffer.alloc(8192, 7), 0, 8192, border - 4096);
  }
  const block = await RamBlock.fromFile("pc.ram", source);
  expect(block.segments).toHaveLength(2);
  expect(block.view(0, 6)).toEqual(new TextEncoder().encode("before"));
  expect([block.view(border - 1, 1)[0], block.view(border, 1)[0]]).toEqual([7, 7]);
  await block.toFile(copy);
  expect((await stat(copy)).blocks * 512).toBe(3 * 4096);
  await using file = await open(copy);
  const bytes = Buffer.alloc(8192);
  await file.read(bytes, 0, 8192, border - 4096);
  expect(bytes.equals(Buffer.alloc(8192, 7))).toBe(true);
});

test("RamBlock.fromFile() rejects what is no image", async () => {
  using directory = new TemporaryFolder();
  await Bun.write(directory.file("odd"), "x".repeat(4097));
  await Bun.write(directory.file("empty"), "");
  await outputOf(["mkfifo", directory.file("pipe")]);
  for (const name of ["odd", "empty"]) {
    await expect(RamBlock.fromFile("a", directory.file(name))).rejects.toThrow(RangeError);
  }
  for (const [name, code] of [
    ["missing", "ERR_MULTIFD_SYSTEM"],
    ["pipe", "ERR_MULTIFD_IMAGE"],
    ["", "ERR_MULTIFD_IMAGE"],
  ] as const) {
    const error = await rejectionOf(RamBlock.fromFile("a", directory.file(name)));
    expect(error.code).toBe(code);
  }
});

test("RamBlock.fromFile() notices a file that becomes shorter", async () => {
  using directory = new TemporaryFolder();
  const path = directory.file("shrinking");
  await Bun.write(path, makeImage(64 * MIB));
  using image = new ImageReader(path);
  await truncate(path, 9 * MIB);
  const error = await rejectionOf(image.load(RamBlock.allocate("a", image.bytes)));
  expect(error.code).toBe("ERR_MULTIFD_IMAGE");
  expect(error.message).toContain(`ends at byte ${9 * MIB} now, must keep its ${64 * MIB} bytes`);
});

test("RamBlock.toFile() replaces a file only when all is written, through links too", async () => {
  using directory = new TemporaryFolder();
  const file = directory.file("file");
  const link = directory.file("link");
  await Bun.write(file, "older");
  await symlink("file", link);
  const block = RamBlock.allocate("pc.ram", MIB);
  block.view(0, MIB).set(makeImage(MIB));

  const error = await rejectionOf(block.toFile(link, { signal: AbortSignal.abort("enough") }));
  expect(error).toBeInstanceOf(CancelledError);
  expect(error.message).toContain("enough");
  expect(await Bun.file(file).text()).toBe("older");

  await block.toFile(link);
  expect(await readlink(link)).toBe("file");
  expect(Buffer.compare(await Bun.file(file).bytes(), makeImage(MIB))).toBe(0);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect((await readdir(directory.path)).toSorted()).toEqual(["file", "link"]);
});

test("RamBlock.toFile() never takes the place of a directory or a device", async () => {
  using directory = new TemporaryFolder();
  const block = RamBlock.allocate("pc.ram", 4096);
  for (const path of [directory.path, "/dev/null"]) {
    expect((await rejectionOf(block.toFile(path))).code).toBe("ERR_MULTIFD_IMAGE");
  }
  const missing = await rejectionOf(block.toFile(directory.file("no", "file")));
  expect(missing.errno).toBe("ENOENT");
  expect(await readdir(directory.path)).toEqual([]);
});

test("RamBlock.toFile() is cancelled between chunks and leaves nothing behind", async () => {
  using directory = new TemporaryFolder();
  const block = RamBlock.allocate("pc.ram", 256 * MIB);
  for (const view of block.views()) view.fill(1);
  const controller = new AbortController();
  const saving = rejectionOf(block.toFile(directory.file("image"), { signal: controller.signal }));
  await Bun.sleep(20);
  controller.abort(new Error("SIGINT"));
  expect((await saving).message).toContain("cancelled (SIGINT)");
  expect(await readdir(directory.path)).toEqual([]);
});
