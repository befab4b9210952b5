import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";
import { writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { readRecording } from "../lib/recording/recording_reader.ts";
import { openRegularFile } from "../lib/storage/opened_file.ts";
import {
  analyze,
  MultifdError,
  RamBlock,
  record,
  Recording,
  writeRecording,
  type GuestState,
  type RecordingContent,
  type Statistics,
} from "../mod.ts";
import { encodeFullSection } from "../lib/wire/main_stream_writer.ts";
import { rejectionOf, thrownBy } from "./kit/errors.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";

const HEADER_BYTES = 36;
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index * 17);
let directory: TemporaryFolder;

beforeAll(async () => {
  directory = new TemporaryFolder();
});

afterAll(async () => {
  directory[Symbol.dispose]();
});

function contentOf(blocks: readonly RamBlock[]): RecordingContent {
  const timer = encodeFullSection(
    { sectionId: 0, idstr: "timer", instanceId: 0, version: 2 },
    Uint8Array.of(1, 2, 3, 4),
  );
  const description = JSON.stringify({
    page_size: 4096,
    devices: [
      {
        name: "timer",
        instance_id: 0,
        vmsd_name: "timer",
        version: 2,
        fields: [{ name: "ticks", type: "uint32", size: 4 }],
      },
    ],
  });
  const end = new Uint8Array(6);
  end[1] = 6;
  new DataView(end.buffer).setUint32(2, description.length);
  const state: GuestState = {
    machine: "pc-q35-10.0",
    uuid: UUID,
    validateUuid: true,
    ramSectionId: 2,
    early: encodeFullSection(
      { sectionId: 9, idstr: "early", instanceId: 0, version: 1 },
      Uint8Array.of(7),
    ),
    switchoverStart: true,
    devices: Uint8Array.from([...timer, ...end, ...new TextEncoder().encode(description)]),
  };
  const statistics: Statistics = {
    elapsedMs: 1,
    ramBytes: 1,
    pageBytes: 1,
    wireBytes: 1,
    multifdBytes: 1,
    normalPages: 1,
    zeroPages: 1,
    deviceBytes: 0,
    switchoverMs: 0,
    strangers: 0,
    rounds: 1,
    channels: [],
  };
  return { blocks, state, compression: "none", statistics };
}

function filledBlocks(): RamBlock[] {
  return [64, 1, 33].map((pages, index) => {
    const block = RamBlock.allocate(`block ${index}`, pages * 4096);
    fillBlock(block, index + 1);
    return block;
  });
}

test("writeRecording() and Recording.open() keep RAM, device state and everything else", async () => {
  const blocks = filledBlocks();
  const content = contentOf(blocks);
  const path = directory.file("whole.rec");
  const metadata = await writeRecording(path, content);
  using recording = await Recording.open(path);
  expect(recording.metadata).toEqual(metadata);
  expect(recording.state).toEqual({ ...content.state, pageBits: undefined });
  for (const [index, block] of blocks.entries()) {
    const kept = recording.blocks[index]!;
    expect(kept.idstr).toBe(block.idstr);
    expect(differingPages(block, kept)).toEqual([]);
  }
  const analysis = await analyze(path);
  expect(analysis.devices.map(({ name, bytes, described }) => [name, bytes, described])).toEqual([
    ["early", 1, false],
    ["timer", 4, true],
  ]);
  expect(analysis.devices[1]?.fields[0]?.value).toBe(0x01020304);
});

test("writeRecording() makes holes of zero pages", async () => {
  const block = RamBlock.allocate("pc.ram", 256 << 20);
  block.view(200 << 20, 4096).fill(1);
  const path = directory.file("sparse.rec");
  await writeRecording(path, contentOf([block]));
  const { blocks: sectors, size } = await Bun.file(path).stat();
  expect(size).toBeGreaterThan(256 << 20);
  expect(sectors * 512).toBeLessThan(1 << 20);
});

test("writeRecording() leaves nothing behind when it is cancelled, and keeps the older file", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("vm.rec");
  await Bun.write(path, "an older one");
  const controller = new AbortController();
  controller.abort(new Error("not today"));
  const error = await rejectionOf(
    writeRecording(path, contentOf(filledBlocks()), controller.signal),
  );
  expect(error.code).toBe("ERR_MULTIFD_CANCELLED");
  expect(await readdir(folder.path)).toEqual(["vm.rec"]);
  expect(await Bun.file(path).text()).toBe("an older one");
});

/** Writes `bytes`, to be opened. */
function changedRecording(bytes: Uint8Array): string {
  const path = directory.file("changed.rec");
  writeFileSync(path, bytes);
  return path;
}

/** Reads `bytes` as the thread does that `Recording.open()` starts, hundreds of times. */
function refusal(bytes: Uint8Array): MultifdError {
  const path = changedRecording(bytes);
  using file = openRegularFile(`Cannot open ${path}`, path);
  return thrownBy(() => readRecording(file));
}

async function soundRecording(): Promise<Uint8Array> {
  const path = directory.file("sound.rec");
  await writeRecording(path, contentOf([RamBlock.allocate("pc.ram", 4096)]));
  return Bun.file(path).bytes();
}

test("Recording.open() refuses what is not complete", async () => {
  const sound = await soundRecording();
  const open = (bytes: Uint8Array): Promise<Recording> => Recording.open(changedRecording(bytes));
  (await open(sound))[Symbol.dispose]();
  const incomplete = await rejectionOf(open(sound.with(15, 0)));
  expect(incomplete.code).toBe("ERR_MULTIFD_RECORDING");
  expect(incomplete.message).toContain("incomplete");
  for (const length of [0, 7, 8, 35, 36, 4096, 65_536, sound.byteLength - 1]) {
    expect((await rejectionOf(open(sound.subarray(0, length)))).code).toBe("ERR_MULTIFD_RECORDING");
  }
});

test("Recording.open() finds every changed byte outside the RAM", async () => {
  const sound = await soundRecording();
  const start = 65_536 + 4096;
  const places = fc.oneof(
    fc.nat({ max: HEADER_BYTES - 1 }),
    fc.integer({ min: start, max: sound.byteLength - 1 }),
  );
  fc.assert(
    fc.property(places, fc.integer({ min: 1, max: 255 }), (at, change) => {
      const changed = sound.with(at, (sound[at] ?? 0) ^ change);
      expect(refusal(changed).code).toBe("ERR_MULTIFD_RECORDING");
    }),
    { numRuns: 150 },
  );
});

test("Recording.open() refuses metadata that lies, with a right checksum", async () => {
  const sound = await soundRecording();
  const view = new DataView(sound.buffer, sound.byteOffset);
  const offset = Number(view.getBigUint64(16));
  const text = new TextDecoder().decode(sound.subarray(offset));
  const lies: readonly [search: string | RegExp, replacement: string][] = [
    [/"offset":65536/, '"offset":1'],
    [/"offset":65536/, '"offset":-65536'],
    [/"offset":65536/, '"offset":6553600'],
    [/"bytes":4096/, '"bytes":4097'],
    [/"bytes":4096/, '"bytes":1e15'],
    [/"bytes":4096/, '"bytes":0'],
    [/"pageSize":4096/, '"pageSize":4095'],
    [/"pageSize":4096/, '"pageSize":0'],
    [/"pageSize":4096/, '"pageSize":2048'],
    [/"pageSize":4096/, '"pageSize":12288'],
    [/"pageBits":null/, '"pageBits":13'],
    [/"pageBits":null/, '"pageBits":1e300'],
    [/"ramSectionId":2/, '"ramSectionId":4294967296'],
    [/"source":\{[^}]*\}/, '"source":null'],
    [/"source":\{[^}]*\}/, '"source":{}'],
    [/"machine":"/, `"machine":"${"m".repeat(256)}`],
    [/"blocks":\[[^\]]*\]/, '"blocks":null'],
    [/"blocks":\[[^\]]*\]/, '"blocks":[null]'],
    [/"blocks":\[(.*?)\]/, '"blocks":[$1,$1]'],
    [/"early":\{[^}]*\}/, '"early":null'],
    [/"devices":\{[^}]*\}/, '"devices":null'],
    [/"idstr":"pc.ram"/, '"idstr":"pc\\u0000ram"'],
    [/"idstr":"pc.ram"/, '"idstr":"\\ud800"'],
    [/"idstr":"pc.ram"/, `"idstr":"${"x".repeat(256)}"`],
    [/^.*$/s, "null"],
    [/"idstr":"pc.ram"/, '"idstr":""'],
    [/"idstr":"pc.ram"/, '"idstr":7'],
    [/"uuid":"[^"]*"/, '"uuid":"none"'],
    [/"machine":"[^"]*"/, '"machine":null'],
    [/"blocks":\[[^\]]*\]/, '"blocks":[]'],
    [/"blocks":\[[^\]]*\]/, '"blocks":7'],
    [/"devices":\{/, '"devices":{"bytes":1e9},"more":{'],
    [/^\{/, "["],
  ];
  for (const [search, replacement] of lies) {
    const json = new TextEncoder().encode(text.replace(search, replacement));
    const lying = Buffer.concat([sound.subarray(0, offset), json]);
    lying.writeBigUInt64BE(BigInt(json.byteLength), 24);
    lying.writeUInt32BE(Bun.hash.crc32(json), 32);
    const { code, message } = refusal(lying);
    expect(await rejectionOf(analyze(directory.file("changed.rec")))).toMatchObject({
      code: "ERR_MULTIFD_RECORDING",
      message,
    });
    expect([replacement, code]).toEqual([replacement, "ERR_MULTIFD_RECORDING"]);
  }
});

test("record() refuses at once an output that can be no file", async () => {
  using folder = new TemporaryFolder();
  for (const [output, error] of [
    [folder.path, { code: "ERR_MULTIFD_IMAGE" }],
    [folder.file("none/vm.rec"), { code: "ERR_MULTIFD_SYSTEM", errno: "ENOENT" }],
  ] as const) {
    expect(await rejectionOf(record({ endpoint: "127.0.0.1:0", output }))).toMatchObject(error);
  }
});
