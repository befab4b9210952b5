import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";
import { join } from "node:path";
import { MultifdError } from "../mod.ts";
import { analyzeFile } from "../lib/qemu/analyze_file.ts";
import { DescriptionMismatch, parseDevice } from "../lib/qemu/device_parser.ts";
import { hex } from "./kit/byte_ends.ts";
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
    { fields: [{ ...field, size: 0, array_len: 2e6 }] },
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
