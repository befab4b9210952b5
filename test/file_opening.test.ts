import { expect, test } from "bun:test";
import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { SeekTableWriter } from "../lib/snapshot/seek_table.ts";
import { contentChecksum } from "../lib/snapshot/seekable_zstd.ts";
import { encodeFullSection, MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import {
  analyze,
  compressSnapshot,
  copySnapshot,
  createSnapshot,
  diffSnapshots,
  extractBlock,
  openSnapshot,
  RamBlock,
  Recording,
  verifySnapshot,
  writeRecording,
} from "../mod.ts";
import { written } from "./kit/byte_ends.ts";
import { rejectionOf } from "./kit/errors.ts";
import { runExample } from "./kit/example_program.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { EMPTY_STATE, saveSnapshot } from "./kit/snapshots.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const PAGE = 4096;
const MIB = 1 << 20;

function blockOf(seed: number, pages = 1024): RamBlock {
  const block = RamBlock.allocate("pc.ram", pages * PAGE);
  fillBlock(block, seed);
  return block;
}

async function save(path: string, block: RamBlock): Promise<void> {
  await saveSnapshot({ path, blocks: [block] });
}

async function saveCompressed(path: string, block: RamBlock): Promise<void> {
  await save(`${path}.plain`, block);
  using plain = await openSnapshot(`${path}.plain`);
  await compressSnapshot(plain, path, { level: 1 });
}

async function saveRecording(path: string, block: RamBlock): Promise<void> {
  await using writer = await createSnapshot({ path: `${path}.x`, blocks: [block] });
  const statistics = writer.statistics();
  await writeRecording(path, {
    blocks: [block],
    state: EMPTY_STATE,
    compression: "none",
    statistics,
  });
}

test("a snapshot that is replaced after it was opened is read to the end as it was", async () => {
  using folder = new TemporaryFolder();
  const [older, newer] = [blockOf(1), blockOf(2)];
  for (const write of [save, saveCompressed]) {
    const path = folder.file(write.name);
    const other = folder.file("other");
    await write(path, older);
    await write(other, newer);
    using file = await openSnapshot(path);
    await using prepared = await file.prepareLoad({ channels: 3 });
    renameSync(other, path);
    for (const directIo of [false, true]) {
      const { blocks } = await file.load({ channels: 4, directIo });
      expect(differingPages(older, blocks[0]!)).toEqual([]);
    }
    const early = await prepared.load();
    expect(differingPages(older, early.blocks[0]!)).toEqual([]);

    const copies = ["copy", "small", "image"].map((name) => folder.file(`${write.name}.${name}`));
    await copySnapshot(file, copies[0]!);
    await compressSnapshot(file, copies[1]!, { level: 1 });
    await extractBlock(file, "pc.ram", copies[2]!);
    for (const copy of copies.slice(0, 2)) {
      using copied = await openSnapshot(copy);
      expect(await Array.fromAsync(diffSnapshots(file, copied))).toEqual([]);
    }
    expect(readFileSync(copies[2]!).equals(older.view(0, older.bytes))).toBe(true);
    const verified = await verifySnapshot(file);
    expect(verified.presentPages).toBe(file.block("pc.ram").present.count());
    using now = await openSnapshot(path);
    const { blocks } = await now.load();
    expect(differingPages(newer, blocks[0]!)).toEqual([]);
  }
});

test("a path with a NUL is an error and not the path up to there", async () => {
  using folder = new TemporaryFolder();
  const short = folder.file("other.img");
  const path = `${short}\0.img`;
  const block = blockOf(1, 1);
  await save(short, block);
  const refused = { name: "SystemError", errno: "EINVAL" };
  expect(await rejectionOf(openSnapshot(path))).toMatchObject(refused);
  expect(await rejectionOf(analyze(path))).toMatchObject(refused);
  expect(await rejectionOf(Recording.open(path))).toMatchObject(refused);
  expect(() => RamBlock.map("pc.ram", path)).toThrow("EINVAL");
  for (const offset of [0, MIB]) {
    const creating = createSnapshot({ path, offset, blocks: [block] });
    expect(await rejectionOf(creating)).toMatchObject(refused);
  }
});

test("a load goes on when the snapshot is disposed of and its name is given away meanwhile", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = blockOf(1);
  await save(path, block);
  const file = await openSnapshot(path);
  const loading = file.load({ channels: 8 });
  file[Symbol.dispose]();
  writeFileSync(folder.file("other"), "nothing");
  renameSync(folder.file("other"), path);
  const { blocks } = await loading;
  expect(differingPages(block, blocks[0]!)).toEqual([]);
});

test("a recording that is replaced stays the one that was opened, and one cut off is an error", async () => {
  using folder = new TemporaryFolder();
  const [path, other] = [folder.file("vm.rec"), folder.file("other.rec")];
  const [older, newer] = [blockOf(1), blockOf(2)];
  await saveRecording(path, older);
  await saveRecording(other, newer);
  // Opening takes several steps, and the name changes hands between any two of them.
  for (let turn = 0; turn < 10; turn++) {
    const opening = Recording.open(path);
    const analysing = analyze(path);
    await Bun.sleep(turn * 2);
    renameSync(path, folder.file("third"));
    renameSync(other, path);
    renameSync(folder.file("third"), other);
    using recording = await opening;
    const expected = turn % 2 === 0 ? older : newer;
    expect(differingPages(expected, recording.blocks[0]!)).toEqual([]);
    const analysis = await analysing.catch((error: unknown) => error);
    if (!(analysis instanceof Error)) expect(analysis).toHaveProperty("kind", "recording");
  }
  using recording = await Recording.open(path);
  recording.checkLength();
  truncateSync(path, statSync(path).size - 1);
  expect(() => recording.checkLength()).toThrow("must keep its");
  expect(await rejectionOf(Recording.open(path))).toMatchObject({ code: "ERR_MULTIFD_RECORDING" });
  expect(await rejectionOf(analyze(path))).toMatchObject({ code: "ERR_MULTIFD_RECORDING" });
});

test("a recording that is cut off while it is used does not end the process", async () => {
  using folder = new TemporaryFolder();
  const codes = await fixtureResult("cut_recording", [folder.path]);
  const restored = Array.from({ length: 3 }, () => "ERR_MULTIFD_RECORDING");
  const used = Array.from({ length: 3 }, () => "ERR_MULTIFD_IMAGE");
  expect(codes).toEqual([...restored, ...used]);
}, 60_000);

test("a snapshot that is cut off in place after it was opened is an error, not zeros", async () => {
  using folder = new TemporaryFolder();
  const block = blockOf(1);
  for (const write of [save, saveCompressed]) {
    const path = folder.file(write.name);
    await write(path, block);
    using file = await openSnapshot(path);
    truncateSync(path, statSync(path).size >> 1);
    const actions = [
      () => file.load(),
      () => verifySnapshot(file),
      () => extractBlock(file, "pc.ram", folder.file("image")),
      () => copySnapshot(file, folder.file("copy")),
      () => compressSnapshot(file, folder.file("small")),
    ];
    for (const action of actions) {
      expect((await rejectionOf(action())).code).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
    }
    expect((await rejectionOf(openSnapshot(path))).code).toMatch(/_(TRUNCATED|SEEK_TABLE)$/);
  }
});

/** What `virsh save` writes in front of a stream. */
function libvirtHeader(xml: string, magic = "LibvirtQemudSave"): Buffer {
  const header = Buffer.alloc(92 + xml.length);
  header.write(magic, 0, "latin1");
  header.writeUInt32LE(3, 16);
  header.writeUInt32LE(xml.length, 20);
  header.write(xml, 92, "latin1");
  return header;
}

test("a guest that virsh has saved is found behind libvirt's header, whoever opens the file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("vm.save");
  const block = blockOf(3, 300);
  const header = libvirtHeader("<domain type='kvm'/>".padEnd(5001));
  writeFileSync(path, header);
  await saveSnapshot({ path, blocks: [block], offset: header.byteLength });
  expect(readFileSync(path).subarray(0, header.byteLength).equals(header)).toBe(true);
  using file = await openSnapshot(path);
  expect(file.index.start).toBe(header.byteLength);
  const { blocks } = await file.load();
  expect(differingPages(block, blocks[0]!)).toEqual([]);
  expect(await analyze(path)).toMatchObject({ kind: "mapped-ram", machine: "multifd" });

  const [image, copy, small] = ["image", "copy", "small"].map((name) => folder.file(name));
  const commands: [string[], object][] = [
    [["info", path], { offset: header.byteLength }],
    [["verify", path], { presentZeroPages: 0 }],
    [["extract", path, "--block", "pc.ram", "--output", image!], { bytes: block.bytes }],
    [["diff", path, path], { changedPages: 0 }],
    [["convert", path, "--to", "mapped-ram", "--output", copy!], { offset: header.byteLength }],
    [["convert", path, "--to", "compressed", "--output", small!], { offset: header.byteLength }],
    [["convert", path, "--to", "recording", "--output", folder.file("vm.rec")], { blocks: 1 }],
  ];
  for (const [args, facts] of commands) {
    const { status, stderr, result } = await runExample("snapshot", [...args, "--json"]);
    expect([args[0], status, stderr]).toEqual([args[0], 0, ""]);
    expect(result).toMatchObject({ ok: true, ...facts });
  }
  expect(readFileSync(image!).equals(block.view(0, block.bytes))).toBe(true);
  for (const made of [copy!, small!]) {
    using opened = await openSnapshot(made);
    expect(opened.index.start).toBe(header.byteLength);
    const loaded = await opened.load();
    expect(differingPages(block, loaded.blocks[0]!)).toEqual([]);
  }
  using recording = await Recording.open(folder.file("vm.rec"));
  expect(differingPages(block, recording.blocks[0]!)).toEqual([]);

  const code = async (head: Buffer): Promise<string> => {
    const fd = openSync(path, "r+");
    writeSync(fd, head, 0, 92, 0);
    closeSync(fd);
    return (await rejectionOf(openSnapshot(path))).code;
  };
  expect(await code(libvirtHeader("", "LibvirtQemudPart"))).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
  header.writeUInt32LE(0xffff_fff0, 20);
  expect(await code(header)).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
  expect(await code(libvirtHeader("x".repeat(9)))).toBe("ERR_MULTIFD_STREAM_MAGIC");
});

const EARLY = { sectionId: 7, idstr: "early", instanceId: 0, version: 1 };

/** A stream with as many sections of devices in front of the RAM, which never comes. */
function streamWith(sections: number, bytes: number): Uint8Array {
  return written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header({ machine: "none", capabilities: ["mapped-ram"] });
    const section = encodeFullSection(EARLY, new Uint8Array(bytes));
    for (let index = 0; index < sections; index++) out.bytes(section);
  });
}

/** A stream that is compressed into frames of 8 MiB. */
function compressed(stream: Uint8Array): Uint8Array {
  const table = new SeekTableWriter();
  const frames: Uint8Array[] = [];
  for (let at = 0; at < stream.byteLength; at += 8 * MIB) {
    const content = stream.slice(at, at + 8 * MIB);
    const frame = Bun.zstdCompressSync(content);
    table.add(frame.byteLength, content.byteLength, contentChecksum(content));
    frames.push(frame);
  }
  return Buffer.concat([...frames, table.encode()]);
}

/** A file of a few KiB on disk that ends with a seek table of nothing but zeros, 100 million entries. */
function writeSparseTable(path: string): void {
  const frames = 100_000_000;
  const tableBytes = 8 + frames * 8 + 9;
  const header = Buffer.alloc(12);
  header.writeUInt32LE(0xfd2f_b528, 0); // a frame, so that it is taken for a compressed file
  header.writeUInt32LE(0x184d_2a5e, 4);
  header.writeUInt32LE(tableBytes - 8, 8);
  const footer = Buffer.alloc(9);
  footer.writeUInt32LE(frames, 0);
  footer.writeUInt32LE(0x8f92_eab1, 5);
  const fd = openSync(path, "w");
  writeSync(fd, header, 0, header.byteLength, 0);
  writeSync(fd, footer, 0, footer.byteLength, 4 + tableBytes - 9);
  closeSync(fd);
}

/** 2 TiB of RAM in a file that is all holes but for its headers. */
async function writeSparseRam(path: string): Promise<void> {
  await using writer = await createSnapshot({ path, blocks: [blockOf(1, 1)], sync: false });
  await writer.complete();
  const bytes = Buffer.from(readFileSync(path));
  const TIB = 2 ** 40;
  using file = await openSnapshot(path);
  const { bitmapOffset, pagesOffset } = file.blocks[0]!;
  const announced = bitmapOffset - 28 - 8;
  const [total, length] = [bytes.indexOf("pc.ram") - 9, announced];
  bytes.writeBigUInt64BE(BigInt(2 * TIB + 4), total);
  bytes.writeBigUInt64BE(BigInt(2 * TIB), length);
  const pages = 128 * MIB;
  bytes.writeBigUInt64BE(BigInt(pages), bitmapOffset - 8);
  const fd = openSync(path, "w");
  writeSync(fd, bytes, 0, bitmapOffset, 0);
  writeSync(fd, bytes, pagesOffset + PAGE, bytes.byteLength - pagesOffset - PAGE, pages + 2 * TIB);
  closeSync(fd);
}

test("opening a file takes time and memory by what it holds, and never the event loop", async () => {
  using folder = new TemporaryFolder();
  writeSparseTable(folder.file("table.zst"));
  await writeSparseRam(folder.file("holes.snap"));
  writeFileSync(folder.file("early.zst"), compressed(streamWith(15, 16 * MIB - 100)));
  writeFileSync(folder.file("early.snap"), streamWith(4, 16 * MIB - 100));
  writeFileSync(folder.file("endless.snap"), streamWith(1, 100 * MIB));
  writeFileSync(folder.file("many.snap"), streamWith(1_000_000, 1));
  const large = blockOf(1, 64);
  {
    await using writer = await createSnapshot({ path: folder.file("x"), blocks: [large] });
    const statistics = writer.statistics();
    const state = { ...EMPTY_STATE, devices: new Uint8Array(200 * MIB) };
    const content = { blocks: [large], state, compression: "none", statistics };
    await writeRecording(folder.file("large.rec"), content);
  }
  const files: readonly [string, RegExp][] = [
    ["table.zst", /_SEEK_TABLE$/],
    ["holes.snap", / opened$/],
    ["early.zst", /_LIMIT_DEVICE_STATE$/],
    ["early.snap", /_LIMIT_DEVICE_STATE$/],
    ["endless.snap", /_LIMIT_DEVICE_STATE$/],
    ["many.snap", /_TRUNCATED$|_LIMIT_DEVICE_STATE$|_SECTION$/],
    ["large.rec", / opened$/],
  ];
  const paths = files.map(([name]) => folder.file(name));
  const costs = (await fixtureResult("open_files", paths)) as {
    code: string;
    ms: number;
    gapMs: number;
    bytes: number;
  }[];
  for (const [index, [name, code]] of files.entries()) {
    const cost = costs[index]!;
    expect(`${name} ${cost.code}`).toMatch(code);
    const bytesMax = name === "large.rec" ? 600 * MIB : 256 * MIB;
    expect([name, cost.bytes < bytesMax, cost.bytes]).toEqual([name, true, cost.bytes]);
    expect([name, cost.ms < 5000, cost.ms]).toEqual([name, true, cost.ms]);
    expect([name, cost.gapMs < 50, cost.gapMs]).toEqual([name, true, cost.gapMs]);
  }
}, 60_000);
