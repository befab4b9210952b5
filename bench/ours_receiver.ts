/**
 * The receiving side of this library's transfers; started by ours_transfer.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { parseArgs } from "node:util";
import { BenchSide } from "./bench_process.ts";

const { values } = parseArgs({
  options: {
    bytes: { type: "string", default: "0" },
    compression: { type: "string", default: "zstd" },
    level: { type: "string", default: "1" },
    engine: { type: "string" },
    channels: { type: "string", default: "2" },
    verify: { type: "boolean", default: false },
  },
});

/** A receiver's threads compile their page path while nobody has connected yet. */
const SETTLE_MS = 1000;

const side = new BenchSide();
const library = await import("../mod.ts");
const { libraryCompression } = await import("./ours_transfer.ts");
const block = library.RamBlock.allocate("pc.ram", Number(values.bytes), { prefault: true });
side.startCounting(block.bytes);
await using receiver = await library.listen({
  endpoint: "127.0.0.1:0",
  channels: Number(values.channels),
  compression: libraryCompression(values.compression, Number(values.level), values.engine),
  blocks: [block],
});
// As QEMU's destination does, it has been waiting for a while when the migration begins.
await Bun.sleep(SETTLE_MS);
side.endSetUp();
side.report({ endpoint: receiver.endpoint });
await receiver.complete();
side.report(side.counts());
if (values.verify) {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const view of block.views()) hasher.update(view);
  side.report({ sha256: hasher.digest("hex") });
}
