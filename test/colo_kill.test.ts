/**
 * Kills one side of a pair at random moments. `MULTIFD_COLO_KILLS=200` makes the proof long; the
 * number counts for each method.
 */
import { describe, expect, test } from "bun:test";
import { ColoSide } from "../examples/colo_side.ts";
import { decodeSeal, encodeSeal, KeyValueTable, type TableSeal } from "../examples/colo_table.ts";
import { TableWriter } from "../examples/colo_writer.ts";
import {
  capabilities,
  connectPrimary,
  listenSecondary,
  PageBitmap,
  RamBlock,
  trackDirtyPages,
  type CompressionMethod,
} from "../mod.ts";
import { ColoMessage } from "../lib/wire/colo_message.ts";
import { runExample } from "./kit/example_program.ts";
import { CutProxy } from "./kit/cut_proxy.ts";

const KILLS = Number(process.env["MULTIFD_COLO_KILLS"] ?? 4);
const TABLE_BYTES = 2 * 1_048_576;
/** Long enough for several checkpoints, which follow each other without a delay. */
const KILL_WITHIN_MS = 80;

async function expectWholeAfterKill(compression: CompressionMethod): Promise<"between" | "inside"> {
  await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0", compression });
  let seal: TableSeal | undefined;
  secondary.on("checkpoint", ({ deviceState }) => {
    seal = decodeSeal(deviceState);
  });
  const place = ["--connect", secondary.endpoint, "--compression", compression];
  const pace = ["--delay", "0", "--table", String(TABLE_BYTES)];
  await using primary = new ColoSide(["--role", "primary", ...place, ...pace]);
  await primary.hear(({ epoch }) => epoch === 2);
  await Bun.sleep(Math.random() * KILL_WITHIN_MS);
  primary.process.kill("SIGKILL");
  const left = await secondary.ended();
  await primary.ended();

  const memory = secondary.blocks[0]!.view(0, TABLE_BYTES);
  const witness = primary.said.find(({ epoch }) => epoch === left.epoch);
  expect(left.epoch).toBeGreaterThan(0);
  expect(seal).toEqual(witness!["seal"] as TableSeal);
  expect(KeyValueTable.inspect(memory)?.sums).toEqual(seal!.sums);
  if (left.pending !== undefined) return "inside";
  // Nothing of a next checkpoint had begun to arrive.
  const cache = secondary.caches[0]!.view(0, TABLE_BYTES);
  expect(Buffer.compare(memory, cache)).toBe(0);
  return "between";
}

describe("colo/kill: primary", () => {
  for (const { method: compression, available } of capabilities().methods) {
    if (!available) console.log(`colo/kill/${compression} skipped: no library for it`);
    test.skipIf(!available)(
      `colo/kill/${compression}: the secondary holds what the primary had at a checkpoint`,
      async () => {
        const counts = { between: 0, inside: 0 };
        for (let kill = 0; kill < KILLS; kill++) counts[await expectWholeAfterKill(compression)]++;
        if (KILLS >= 50) console.log(`${compression}: ${JSON.stringify(counts)}`);
      },
      KILLS * 15_000,
    );
  }

  test("colo/kill: a primary that dies while its checkpoint is applied leaves all of it", async () => {
    await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0" });
    using proxy = new CutProxy(secondary.endpoint);
    const seals: TableSeal[] = [];
    secondary.on("checkpoint", ({ deviceState }) => void seals.push(decodeSeal(deviceState)));
    const pace = ["--delay", "0", "--table", String(16 * TABLE_BYTES)];
    await using primary = new ColoSide(["--role", "primary", "--connect", proxy.endpoint, ...pace]);
    let received = 0;
    proxy.filter = (chunk, from, connection) => {
      const isReceived =
        connection === "main" &&
        from === "destination" &&
        chunk.readUInt32BE(0) === ColoMessage.VMSTATE_RECEIVED;
      // The secondary says so and applies at once; the third time nobody hears it.
      if (!isReceived || ++received < 3) return chunk;
      primary.process.kill("SIGKILL");
      return undefined;
    };
    const left = await secondary.ended();
    expect(left).toMatchObject({ epoch: 3, pending: undefined });
    const memory = secondary.blocks[0]!.view(0, secondary.blocks[0]!.bytes);
    expect(KeyValueTable.inspect(memory)?.sums).toEqual(seals[2]!.sums);
  });
});

describe("colo/kill: secondary", () => {
  test("colo/kill: the primary goes on alone and knows why", async () => {
    await using secondary = new ColoSide(["--role", "secondary"]);
    const { endpoint } = await secondary.hear((message) => message["endpoint"] !== undefined);
    const memory = new SharedArrayBuffer(TABLE_BYTES);
    const block = RamBlock.fromBuffer("table", memory);
    await using writer = new TableWriter(memory);
    await using primary = await connectPrimary({ endpoint: String(endpoint), blocks: [block] });
    using tracker = await trackDirtyPages(block);
    writer.run();
    await primary.start();
    let last: TableSeal | undefined;
    const left = await primary.run({
      delayMs: 1,
      capture: async () => {
        last = await writer.pause();
        const dirty = new PageBitmap(block.pages);
        await tracker.fetch(dirty);
        return { dirty, deviceState: encodeSeal(last) };
      },
      resume: () => writer.run(),
      onCheckpoint: ({ epoch }) => {
        if (epoch === 5) secondary.process.kill("SIGKILL");
      },
    });
    expect(left.epoch).toBeGreaterThanOrEqual(5);
    expect(left.cause).toBeInstanceOf(Error);
    expect(left.cause!.side).toBe("source");
    await Bun.sleep(20);
    const seal = await writer.pause();
    expect(seal.changes).toBeGreaterThan(last!.changes);
    expect(KeyValueTable.inspect(new Uint8Array(memory))?.sums).toEqual(seal.sums);
  });
});

describe("examples/colo.ts", () => {
  test("kills its primary and proves what the secondary holds", async () => {
    const args = ["--json", "--table", "1M", "--delay", "20", "--kill-after", "300"];
    const { status, stderr, result } = await runExample("colo", args);
    expect([status, stderr]).toEqual([0, ""]);
    expect(result).toMatchObject({ equal: true });
    expect(result["wentOn"]).toBeGreaterThan(0);
  });

  test("refuses arguments that cannot work with status 2", async () => {
    for (const args of [
      ["--role", "third"],
      ["--role", "primary"],
      ["--table", "x"],
      ["--delay", "-1"],
    ]) {
      expect((await runExample("colo", args)).status).toBe(2);
    }
  });
});
