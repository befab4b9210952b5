/**
 * The receiving side of the device-state benchmark; started by device_state.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { BenchSide } from "./bench_process.ts";
import { count, flag, readSettings } from "./settings.ts";

const values = readSettings({
  ram: count(0),
  devices: count(0),
  bytes: count(0),
  channels: count(2),
  verify: flag(),
});

/** The library's threads compile their code while nobody has connected yet. */
const SETTLE_MS = 1000;

const side = new BenchSide();
const { listen, memoryDevice, RamBlock } = await import("../mod.ts");
const block = RamBlock.allocate("pc.ram", values.ram, { prefault: true });
const copies = Array.from({ length: values.devices }, () => {
  const buffer = new SharedArrayBuffer(values.bytes);
  RamBlock.fromBuffer("bench", buffer, { hugePages: true }); // as RAM is
  new Uint8Array(buffer).fill(255); // resident, as guest memory of a device's driver would be
  return buffer;
});
const stateBytes = copies.reduce((sum, { byteLength }) => sum + byteLength, 0);
side.startCounting(block.bytes + stateBytes);
await using receiver = await listen({
  endpoint: "127.0.0.1:0",
  channels: values.channels,
  blocks: [block],
  devices: copies.map((buffer, instanceId) => memoryDevice({ idstr: "bench", instanceId, buffer })),
});
// As a real destination does, it has been waiting for a while when the migration begins.
await Bun.sleep(SETTLE_MS);
side.endSetUp();
side.report({ endpoint: receiver.endpoint });
await receiver.complete();
side.report(side.counts());
if (values.verify) {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const view of block.views()) hasher.update(view);
  for (const buffer of copies) hasher.update(new Uint8Array(buffer));
  side.report({ sha256: hasher.digest("hex") });
}
