import { describe, expect, test } from "bun:test";
import { BandwidthShare } from "../lib/sync/bandwidth_limit.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { BandwidthLimit, connect, listen, RamBlock, relay } from "../mod.ts";
import type { BandwidthJob } from "./fixtures/bandwidth_thread.ts";
import { testTimeouts } from "./kit/limits.ts";
import { fillPage } from "./kit/page_content.ts";
import { TestThread, until } from "./kit/threads.ts";
import { transfer } from "./kit/transfer.ts";

const MIB = 1_048_576;
/** What a bucket may catch up with, and what clocks of two threads may differ by. */
const SLACK_MS = 21;

/** Milliseconds that these pieces, one after the other, wait for. */
function waited(limit: BandwidthLimit, ...pieces: readonly number[]): number {
  const control = new SessionControl();
  const start = performance.now();
  const share = new BandwidthShare(limit.buffer);
  for (const bytes of pieces) share.pace(bytes, control);
  return performance.now() - start;
}

/** Runs threads that all begin at once; how long each of them took, and all together. */
async function threadsOn(
  limit: BandwidthLimit,
  count: number,
  work: Pick<BandwidthJob, "pieces" | "bytes">,
  meanwhile: (control: SessionControl) => Promise<void> = async () => {},
): Promise<{ readonly times: readonly number[]; readonly elapsedMs: number }> {
  const control = new SessionControl();
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const job: BandwidthJob = {
    ...work,
    limit: limit.buffer,
    control: control.buffer,
    gate: gate.buffer,
  };
  await using stack = new AsyncDisposableStack();
  const threads = Array.from({ length: count }, () =>
    stack.use(new TestThread("bandwidth_thread", job)),
  );
  await until("all threads are ready", () => Atomics.load(gate, 0) === count);
  const start = performance.now();
  Atomics.store(gate, 0, -1);
  Atomics.notify(gate, 0);
  await meanwhile(control);
  const times = (await Promise.all(threads.map((thread) => thread.result()))) as number[];
  return { times, elapsedMs: performance.now() - start };
}

function randomBlock(bytes: number): RamBlock {
  const block = RamBlock.allocate("pc.ram", bytes);
  for (let page = 0; page < block.pages; page++) {
    fillPage(block.view(page * 4096, 4096), "random", page);
  }
  return block;
}

describe("BandwidthLimit", () => {
  test("keeps rates of any size as they are", () => {
    for (const rate of [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 33 + 5, Number.MAX_SAFE_INTEGER]) {
      const limit = new BandwidthLimit(rate);
      expect(new BandwidthLimit(limit.buffer).bytesPerSecond).toBe(rate);
    }
    expect(new BandwidthLimit(0.5).bytesPerSecond).toBe(1);
    expect(new BandwidthLimit(Infinity).bytesPerSecond).toBe(0);
  });

  test("refuses what is no rate", () => {
    for (const rate of [-1, NaN]) {
      expect(() => new BandwidthLimit(rate)).toThrow(RangeError);
      const limit = new BandwidthLimit(1);
      expect(() => (limit.bytesPerSecond = rate)).toThrow("must be 0 or more bytes/s");
      expect(limit.bytesPerSecond).toBe(1);
    }
    for (const other of [null, "5", {}, new ArrayBuffer(20), new SharedArrayBuffer(8)]) {
      // @ts-expect-error No caller with types can do this, except for a buffer of another length.
      expect(() => new BandwidthLimit(other)).toThrow("must be bytes/s or the buffer of a limit");
    }
  });

  test("lets everything pass at once without a limit", () => {
    expect(waited(new BandwidthLimit(0), 2 ** 40, 2 ** 40)).toBeLessThan(1000);
  });

  test("waits for as long as the bytes take, however small the pieces are", () => {
    expect(waited(new BandwidthLimit(MIB), MIB / 4)).toBeGreaterThan(250 - SLACK_MS);
    // Each of them takes a fraction of the clock's tick.
    const small = Array.from({ length: 8192 }, () => 16);
    expect(waited(new BandwidthLimit(MIB), ...small)).toBeGreaterThan(125 - SLACK_MS);
  });

  test("does not make up for a pause with a burst", async () => {
    const limit = new BandwidthLimit(MIB);
    await Bun.sleep(300);
    expect(waited(limit, MIB / 8)).toBeGreaterThan(125 - SLACK_MS);
  });

  test("is one for all threads", async () => {
    const limit = new BandwidthLimit(8 * MIB);
    const { elapsedMs } = await threadsOn(limit, 4, { pieces: 16, bytes: 65_536 });
    // 4 MiB in all; each alone would be through in a quarter of that.
    expect(elapsedMs).toBeGreaterThan(500 - SLACK_MS);
  });

  test("lets waiting threads begin anew when it changes", async () => {
    const limit = new BandwidthLimit(1);
    const { times, elapsedMs } = await threadsOn(limit, 2, { pieces: 3, bytes: 1000 }, async () => {
      await Bun.sleep(50);
      limit.bytesPerSecond = 100_000;
    });
    // 2000 s at the first rate, and 60 ms at the second.
    for (const ms of times) expect(ms).toBeLessThan(20_000);
    expect(elapsedMs).toBeGreaterThan(60 - SLACK_MS);
  });

  test("holds nobody whose session stops", async () => {
    const limit = new BandwidthLimit(1);
    const { times } = await threadsOn(limit, 2, { pieces: 1, bytes: 10_000 }, async (control) => {
      await Bun.sleep(50);
      control.finish();
    });
    for (const ms of times) expect(ms).toBeLessThan(20_000);
  });
});

describe("multifd/max-bandwidth", () => {
  for (const channels of [1, 8]) {
    test(`holds for ${channels} channels and the main connection together`, async () => {
      const block = randomBlock(4 * MIB);
      const maxBandwidth = 16 * MIB;
      const { sent } = await transfer({
        both: { channels },
        sender: { blocks: [block], maxBandwidth },
      });
      expect(sent.elapsedMs).toBeGreaterThan((4 * MIB * 1000) / maxBandwidth - SLACK_MS);
    });
  }

  test("counts the main connection", async () => {
    // Zero pages are told about there, some eight bytes each, and nothing goes over the channels.
    const block = RamBlock.allocate("pc.ram", 65_536 * 4096);
    const maxBandwidth = 1_000_000;
    const { sent } = await transfer({
      sender: { blocks: [block], maxBandwidth, zeroPageDetection: "legacy" },
    });
    expect(sent.wireBytes).toBeGreaterThan(500_000);
    // What came before the first page was not yet on the clock.
    const bytes = sent.wireBytes - 10_000;
    expect(sent.elapsedMs).toBeGreaterThan((bytes * 1000) / maxBandwidth - SLACK_MS);
  });

  test("is shared by sessions that are given the same limit", async () => {
    const maxBandwidth = new BandwidthLimit(16 * MIB);
    const blocks = [randomBlock(3 * MIB)];
    const start = performance.now();
    await Promise.all([
      transfer({ sender: { blocks, maxBandwidth } }),
      transfer({ sender: { blocks, maxBandwidth } }),
    ]);
    expect(performance.now() - start).toBeGreaterThan(375 - SLACK_MS);
  });

  test("can be changed while pages are on their way", async () => {
    const maxBandwidth = new BandwidthLimit(16_384);
    const block = randomBlock(8 * MIB);
    const { sent, received } = await transfer({
      both: { channels: 4 },
      sender: { blocks: [block], maxBandwidth },
      send: async (sender) => {
        const sending = sender.send();
        await Bun.sleep(100);
        maxBandwidth.bytesPerSecond = 0;
        await sending;
      },
    });
    expect(received.normalPages).toBe(block.pages);
    // At the first rate it would have taken 512 s.
    expect(sent.elapsedMs).toBeLessThan(50_000);
  });

  test("refuses what is no rate", async () => {
    const blocks = [randomBlock(4096)];
    const endpoint = "127.0.0.1:1";
    for (const maxBandwidth of [-1, NaN]) {
      await expect(connect({ endpoint, blocks, maxBandwidth })).rejects.toThrow(RangeError);
      const ends = { listen: { endpoint }, connect: { endpoint } };
      await expect(relay({ ...ends, maxBandwidth })).rejects.toThrow(RangeError);
    }
  });

  test("ends with its session, however long it would have taken", async () => {
    await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
    const start = performance.now();
    {
      await using sender = await connect({
        endpoint: receiver.endpoint,
        blocks: [randomBlock(4 * MIB)],
        maxBandwidth: 100_000,
        timeouts: testTimeouts,
      });
      sender.send().catch(() => {});
      await Bun.sleep(100);
    }
    expect(performance.now() - start).toBeLessThan(15_000);
  });
});
