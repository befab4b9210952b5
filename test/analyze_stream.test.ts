import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";
import { join } from "node:path";
import { MultifdError } from "../mod.ts";
import { analyzeFile } from "../lib/qemu/analyze_file.ts";
import { DescriptionMismatch, parseDevice } from "../lib/qemu/device_parser.ts";
import { encodeFullSection, MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { hex, written } from "./kit/byte_ends.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const RUNS = Number(process.env["MULTIFD_FUZZ_RUNS"] ?? 400);
let directory: TemporaryFolder;
let stream: Uint8Array;

beforeAll(async () => {
  directory = new TemporaryFolder();
  const golden = join(import.meta.dir, "golden", "zstd_2", "conn0.fwd.zst");
  stream = Bun.zstdDecompressSync(await Bun.file(golden).bytes());
});

afterAll(async () => {
  directory[Symbol.dispose]();
});

async function analysisOf(bytes: Uint8Array) {
  const path = directory.file("stream");
  await Bun.write(path, bytes);
  return analyzeFile(path);
}

test("analyzeFile() reads a real QEMU's stream, each device by its description", async () => {
  const analysis = await analysisOf(stream);
  expect(analysis.machine).toBe("pc-i440fx-10.0");
  expect(analysis.devices).toHaveLength(31);
  expect(analysis.devices.every(({ described }) => described)).toBe(true);
  const cpu = analysis.devices.find(({ name }) => name === "cpu");
  expect(cpu?.subsections.map(({ name }) => name)).toContain("cpu/msr_ia32_misc_enable");
  const apic = analysis.devices.find(({ name }) => name === "apic");
  expect(apic?.fields.filter(({ name }) => name === "isr")).toHaveLength(8);
  expect(apic?.fields[0]).toMatchObject({ name: "apicbase", offset: 0, bytes: 4 });
});

test("analyzeFile() finds the same devices without the description", async () => {
  const described = await analysisOf(stream);
  const end = described.sections.at(-1)?.offset ?? 0;
  const bare = await analysisOf(stream.subarray(0, end));
  expect(bare.hasDescription).toBe(false);
  const names = (analysis: typeof bare) =>
    analysis.devices.map(({ name, instanceId, bytes }) => [name, instanceId, bytes]);
  expect(names(bare)).toEqual(names(described));
  expect(bare.devices.some((device) => device.described)).toBe(false);
});

test("analyzeFile() says what is wrong with a stream cut anywhere", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: stream.byteLength - 1 }), async (length) => {
      const outcome = await analysisOf(stream.subarray(0, length)).catch((error: unknown) => error);
      if (!(outcome instanceof MultifdError)) {
        // Cut behind the end mark: only the description is missing, or a part of it.
        expect(outcome).toMatchObject({ hasDescription: false });
      }
    }),
    { numRuns: 60 },
  );
});

test("analyzeFile() gets over every change of a stream: a result or an error of its own", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat({ max: stream.byteLength - 1 }), fc.nat({ max: 255 })), {
        minLength: 1,
        maxLength: 8,
      }),
      async (changes) => {
        const changed = stream.slice();
        for (const [at, value] of changes) changed[at] = value;
        const outcome = await analysisOf(changed).catch((error: unknown) => error);
        if (outcome instanceof Error && !(outcome instanceof MultifdError)) throw outcome;
      },
    ),
    { numRuns: RUNS },
  );
});

test("parseDevice() reads numbers, structures, arrays and subsections", () => {
  const data = hex(
    "fe  00000002  0102 0304  01  05 03 612f62 00000001 ffffffffffffffff  0a 6d61707065642d72616d",
  );
  const parsed = parseDevice(data, 0, {
    fields: [
      { name: "small", type: "int8", size: 1 },
      { name: "checked", type: "int32 le", size: 4 },
      { name: "list", type: "uint16", size: 2, array_len: 2 },
      {
        name: "inner",
        type: "struct",
        size: 10,
        struct: {
          fields: [{ name: "on", type: "bool", size: 1 }],
          subsections: [
            { vmsd_name: "a/b", version: 1, fields: [{ name: "big", type: "uint64", size: 8 }] },
          ],
        },
      },
      { name: "named", type: "capability", size: 0 },
    ],
  });
  expect(parsed.bytes).toBe(data.byteLength);
  expect(parsed.fields.map(({ name, index, value }) => [name, index, value])).toEqual([
    ["small", undefined, -2],
    ["checked", undefined, 2],
    ["list", 0, 0x102],
    ["list", 1, 0x304],
    ["inner", undefined, undefined],
    ["named", undefined, "0a6d61707065642d72616d"],
  ]);
  const inner = parsed.fields[4];
  expect(inner?.fields?.[0]?.value).toBe(true);
  expect(inner?.subsections?.[0]).toMatchObject({
    name: "a/b",
    fields: [{ value: "18446744073709551615" }],
  });
});

test("parseDevice() takes arrays apart only as long as they take up data", () => {
  const empty = { name: "x", type: "uint8", size: 0, array_len: 2e9 };
  const nested = { ...empty, size: 1, struct: { fields: [empty, empty] } };
  const parsed = parseDevice(hex("0102"), 0, {
    fields: [empty, nested, { ...empty, size: 1, array_len: 2 }],
  });
  expect(parsed.bytes).toBe(2);
  expect(parsed.fields.map(({ bytes, fields }) => [bytes, fields?.length])).toEqual([
    [0, undefined],
    [0, 2],
    [1, undefined],
    [1, undefined],
  ]);
});

/** A stream that announces one block of so many bytes, then device state and a description. */
function smallStream(ramBytes: number, devices: Uint8Array, description: string): Uint8Array {
  return written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header({ machine: "none", capabilities: [] });
    writer.beginRamSection("start");
    out.u64(ramBytes + 4);
    out.countedString("pc.ram");
    out.u64(ramBytes);
    writer.endRamSection();
    writer.beginRamSection("end");
    out.u64(ramBytes - 4096 + 2);
    out.countedString("pc.ram");
    out.u8(0);
    writer.endRamSection();
    out.bytes(devices);
    const text = new TextEncoder().encode(description);
    out.u8(0);
    out.u8(6);
    out.u32(text.byteLength);
    out.bytes(text);
  });
}

test("analyzeFile() takes no more time and memory than a file is worth, whatever it says", async () => {
  const MIB = 2 ** 20;
  const ids = Array.from({ length: 40 }, (_, index) => index);
  const devices = Buffer.concat(
    ids.map((instanceId) =>
      encodeFullSection({ sectionId: 9, idstr: "d", instanceId, version: 1 }, Uint8Array.of(1)),
    ),
  );
  const fields = [
    { name: "a", type: "b", size: 0, array_len: 999_999 },
    { name: "c", type: "uint8", size: 1 },
  ];
  const entries = ids.map((id) => ({ name: "d", instance_id: id, fields }));
  const described = (text: string) => `{"devices": [${text}]}`;
  const filler = (piece: string, bytes: number) =>
    described(`${piece.repeat(bytes / piece.length)}{}`);
  const none = Uint8Array.of();
  const files: readonly [string, Uint8Array, code: string][] = [
    ["arrays", smallStream(MIB, devices, JSON.stringify({ devices: entries })), "stream"],
    ["large", smallStream(2 ** 42, none, described("")), "stream"],
    ["huge", smallStream(2 ** 50, none, described("")), "ERR_MULTIFD_LIMIT_RAM"],
    ["many", smallStream(MIB, none, filler("[],", 15 * MIB)), "stream"],
    ["strings", smallStream(MIB, none, filler('"",', 15 * MIB)), "stream"],
    ["deep", smallStream(MIB, none, described("[".repeat(MIB) + "]".repeat(MIB))), "stream"],
    [
      "sections",
      smallStream(
        MIB,
        Buffer.concat(Array(50_000).fill(devices.subarray(0, devices.byteLength / 40))),
        filler("{},", MIB),
      ),
      "stream",
    ],
  ];
  await Promise.all(files.map(([name, bytes]) => Bun.write(directory.file(name), bytes)));
  const costs = (await fixtureResult(
    "analysis_memory",
    files.map(([name]) => directory.file(name)),
  )) as { bytes: number; ms: number; code: string }[];
  for (const [index, [name, , code]] of files.entries()) {
    const cost = costs[index]!;
    expect([name, cost.code]).toEqual([name, code]);
    expect([name, cost.bytes < 256 * MIB, cost.bytes]).toEqual([name, true, cost.bytes]);
    expect([name, cost.ms < 5000, cost.ms]).toEqual([name, true, cost.ms]);
  }
}, 60_000);

test("parseDevice() refuses descriptions that do not fit, however they are made", () => {
  const data = hex("01020304");
  let deep: Record<string, unknown> = { fields: [] };
  for (let depth = 0; depth < 40; depth++) {
    deep = { fields: [{ name: "x", type: "struct", size: 1, struct: deep }] };
  }
  const field = { name: "x", type: "uint8", size: 1 };
  for (const entry of [
    { fields: [{ ...field, size: 5 }] },
    { fields: [{ ...field, size: -1 }] },
    { fields: [{ ...field, size: 1e300 }] },
    { fields: [{ ...field, array_len: 1e9 }] },
    { fields: [{ ...field, name: 7 }] },
    { fields: [null] },
    { fields: 7 },
    { subsections: [{ vmsd_name: "a" }] },
    { fields: [{ ...field, struct: 7 }] },
    deep,
  ]) {
    expect(() => parseDevice(data, 0, entry)).toThrow(DescriptionMismatch);
  }
  fc.assert(
    fc.property(fc.jsonValue(), (json) => {
      try {
        parseDevice(data, 0, { fields: [json], subsections: [json] });
      } catch (error) {
        if (!(error instanceof DescriptionMismatch)) throw error;
      }
    }),
    { numRuns: 500 },
  );
});
