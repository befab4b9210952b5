/**
 * The receiving side of this library's transfers, of RAM and of device state.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import type { ListenOptions } from "../mod.ts";
import { BenchSide, sideOptions } from "./bench_process.ts";

/** What {@link transferBetween} tells this side. */
export interface ReceiverSide {
  readonly ramBytes: number;
  readonly devices?: number | undefined;
  /** State of each. */
  readonly deviceBytes?: number | undefined;
  readonly verify: boolean;
  /** Anything else that `listen()` is to be given. */
  readonly session: Partial<ListenOptions>;
}

/** A receiver's threads compile their page path while nobody has connected yet. */
const SETTLE_MS = 1000;

const { ramBytes, devices = 0, deviceBytes = 0, verify, session } = sideOptions() as ReceiverSide;
const side = new BenchSide();
const { listen, memoryDevice, RamBlock } = await import("../mod.ts");
const block = RamBlock.allocate("pc.ram", ramBytes, { prefault: true });
const copies = Array.from({ length: devices }, () => {
  const buffer = new SharedArrayBuffer(deviceBytes);
  RamBlock.fromBuffer("bench", buffer, { hugePages: true }); // as RAM is
  new Uint8Array(buffer).fill(255); // resident, as guest memory of a device's driver would be
  return buffer;
});
side.startCounting(block.bytes + devices * deviceBytes);
await using receiver = await listen({
  endpoint: "127.0.0.1:0",
  blocks: [block],
  devices: copies.map((buffer, instanceId) => memoryDevice({ idstr: "bench", instanceId, buffer })),
  ...session,
});
// As QEMU's destination does, it has been waiting for a while when the migration begins.
await Bun.sleep(SETTLE_MS);
side.endSetUp();
side.report({ endpoint: receiver.endpoint });
await receiver.complete();
side.report(side.counts());
if (verify) {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const view of block.views()) hasher.update(view);
  for (const buffer of copies) hasher.update(new Uint8Array(buffer));
  side.report({ sha256: hasher.digest("hex") });
}
