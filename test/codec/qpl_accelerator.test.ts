/**
 * The hardware path of engine libqpl. No machine of ours has the accelerator, so a library between
 * us and the real one plays it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { capabilities } from "../../mod.ts";

const real = capabilities().libraries.find(({ name }) => name === "libqpl");
const missing = real?.available !== true ? "libqpl" : Bun.which("gcc") === null ? "gcc" : undefined;
const accelerated = test.skipIf(missing !== undefined);
const without = missing === undefined ? "" : ` (needs ${missing})`;
const limitMs = 30_000;

interface RoundTrip {
  readonly result: unknown;
  readonly counts: Record<string, number>;
}

let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "multifd-accelerator-"));
  if (missing !== undefined) return;
  const source = new URL("fake_accelerator.c", import.meta.url).pathname;
  const library = join(folder, "libqpl.so.1");
  const gcc = Bun.spawn(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]);
  if ((await gcc.exited) !== 0) throw new Error("gcc cannot build fake_accelerator.c");
});

afterAll(() => rm(folder, { recursive: true, force: true }));

async function roundTrip(...args: string[]): Promise<RoundTrip> {
  const program = new URL("qpl_round_trip.ts", import.meta.url).pathname;
  const child = Bun.spawn([process.execPath, program, ...args], {
    env: {
      ...process.env,
      MULTIFD_LIBQPL: join(folder, "libqpl.so.1"),
      REAL_LIBQPL: real?.path ?? "",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: limitMs,
  });
  const [output, complaints] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  expect({ status: await child.exited, complaints }).toMatchObject({ status: 0 });
  const counts: Record<string, number> = {};
  for (const [, word = "", count] of complaints.matchAll(/(\w+) (\d+)/g))
    counts[word] = Number(count);
  return { result: JSON.parse(output) as unknown, counts };
}

accelerated(
  `codec/qpl/libqpl: an accelerator goes before all engines and has many pages at a time${without}`,
  async () => {
    const { result, counts } = await roundTrip();
    const expected = { encoder: "libqpl", decoder: "libqpl", equal: true, error: "none" };
    expect(result).toEqual(expected);
    expect(counts["together"]).toBeGreaterThan(20);
    expect(counts["refused"]).toBeGreaterThan(20);
    expect(counts["waited"]).toBe(counts["submitted"] ?? -1);
    expect(counts["left"]).toBe(0);
  },
  limitMs,
);

accelerated(
  `codec/qpl/libqpl: a damaged page ends in an error when nothing is in flight any more${without}`,
  async () => {
    const { result, counts } = await roundTrip("damage");
    expect(result).toMatchObject({ equal: false, error: "CodecError" });
    expect(counts["left"]).toBe(0);
  },
  limitMs,
);
