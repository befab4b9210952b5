/**
 * The hardware path of engine libqpl. No machine of ours has the accelerator, so a library between
 * us and the real one plays it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { capabilities } from "../../mod.ts";
import { LimitMs } from "../kit/limits.ts";
import { runCommand } from "../kit/subprocess.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";
import { bun } from "../setup/command.ts";

const real = capabilities().libraries.find(({ name }) => name === "libqpl");
const missing = real?.available !== true ? "libqpl" : Bun.which("gcc") === null ? "gcc" : undefined;
const accelerated = test.skipIf(missing !== undefined);
const without = missing === undefined ? "" : ` (needs ${missing})`;

interface RoundTrip {
  readonly result: unknown;
  readonly counts: Record<string, number>;
}

let folder: TemporaryFolder;

beforeAll(async () => {
  folder = new TemporaryFolder();
  if (missing !== undefined) return;
  const source = new URL("fake_accelerator.c", import.meta.url).pathname;
  const library = folder.file("libqpl.so.1");
  const gcc = ["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"];
  expect(await runCommand(gcc, { timeoutMs: LimitMs.program })).toMatchObject({ status: 0 });
});

afterAll(() => folder[Symbol.dispose]());

async function roundTrip(...args: string[]): Promise<RoundTrip> {
  const program = new URL("qpl_round_trip.ts", import.meta.url).pathname;
  const end = await runCommand([bun, program, ...args], {
    env: { MULTIFD_LIBQPL: folder.file("libqpl.so.1"), REAL_LIBQPL: real?.path ?? "" },
    timeoutMs: LimitMs.program,
  });
  expect(end).toMatchObject({ status: 0 });
  const counts: Record<string, number> = {};
  for (const [, word = "", count] of end.stderr.matchAll(/(\w+) (\d+)/g))
    counts[word] = Number(count);
  return { result: JSON.parse(end.stdout) as unknown, counts };
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
);

accelerated(
  `codec/qpl/libqpl: a damaged page ends in an error when nothing is in flight any more${without}`,
  async () => {
    const { result, counts } = await roundTrip("damage");
    expect(result).toMatchObject({ equal: false, error: "CodecError" });
    expect(counts["left"]).toBe(0);
  },
);
