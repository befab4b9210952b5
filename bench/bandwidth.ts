/**
 * How well a limit on bandwidth is kept: what goes over all connections in a second, by the number of
 * channels and the rate, and with several sessions that share it.
 *
 *     bun bench/bandwidth.ts --channels 1,2,4,8 --rates 1,20,100,500
 *
 * Sender and receiver are in one process; a machine that cannot move as much shows as a rate below.
 *
 * @module
 */

import { BandwidthLimit, connect, listen, RamBlock, type Receiver, type Sender } from "../mod.ts";
import { machineDescription } from "./idle_machine.ts";
import { draw } from "./report.ts";
import { count, counts, json, runBenchmark, type Values } from "./settings.ts";

const MIB = 2 ** 20;
const BLOCK_BYTES = 32 * MIB;

const SETTINGS = {
  channels: counts([1, 2, 4, 8], "", 1, 255),
  rates: counts([1, 20, 100, 500], "MiB/s", 1, 100_000),
  seconds: count(3, "how long each of them lasts at least", 1),
  sessions: count(1, "that share the limit", 1, 16),
  json,
};

interface Row {
  readonly channels: number;
  readonly limit: number;
  readonly measured: number;
  readonly percent: number;
}

async function main(settings: Values<typeof SETTINGS>): Promise<void> {
  const block = RamBlock.allocate("pc.ram", BLOCK_BYTES, { prefault: true });
  for (const view of block.views()) view.fill(1);
  const rows: Row[] = [];
  for (const channels of settings.channels) {
    for (const limit of settings.rates) {
      const measured = (await measure(settings, block, channels, limit * MIB)) / MIB;
      rows.push({ channels, limit, measured, percent: (measured / limit) * 100 });
    }
  }
  console.log(machineDescription());
  const cells = rows.map(({ channels, limit, measured, percent }) => {
    return [`${channels} channels`, String(limit), measured.toFixed(2), percent.toFixed(1)];
  });
  console.log(draw([["", "limit MiB/s", "measured", "percent"], ...cells]));
  if (settings.json) console.log(JSON.stringify({ machine: machineDescription(), rows }));
}

/** Bytes per second of all sessions together. */
async function measure(
  { seconds, sessions }: Values<typeof SETTINGS>,
  block: RamBlock,
  channels: number,
  bytesPerSecond: number,
): Promise<number> {
  const limit = new BandwidthLimit(0);
  await using stack = new AsyncDisposableStack();
  const pairs: { readonly receiver: Receiver; readonly sender: Sender }[] = [];
  for (let session = 0; session < sessions; session++) {
    const receiver = stack.use(await listen({ endpoint: "127.0.0.1:0", channels }));
    const { endpoint } = receiver;
    const sender = stack.use(
      await connect({ endpoint, channels, blocks: [block], maxBandwidth: limit }),
    );
    pairs.push({ receiver, sender });
  }
  const wireBytes = (): number =>
    pairs.reduce((sum, { sender }) => sum + sender.statistics().wireBytes, 0);
  const before = wireBytes();
  limit.bytesPerSecond = bytesPerSecond;
  const startMs = performance.now();
  const share = (bytesPerSecond * seconds) / sessions;
  await Promise.all(pairs.map(({ sender }) => sendBytes(sender, block, share)));
  const rate = ((wireBytes() - before) * 1000) / (performance.now() - startMs);
  limit.bytesPerSecond = 0;
  await Promise.all(pairs.flatMap((pair) => [pair.sender.complete(), pair.receiver.complete()]));
  return rate;
}

async function sendBytes(sender: Sender, block: RamBlock, bytes: number): Promise<void> {
  for (let left = bytes; left > 0; left -= block.bytes) {
    const pages = Math.min(block.pages, Math.ceil(left / block.pageSize));
    await sender.queueRange(block, 0, pages);
  }
  await sender.sync();
}

await runBenchmark("bandwidth", SETTINGS, main);
