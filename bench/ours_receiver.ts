/**
 * The receiving side of this library's transfers; started by ours_transfer.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { BenchSide } from "./bench_process.ts";
import { count, flag, optional, readSettings, text } from "./settings.ts";

const values = readSettings({
  bytes: count(0),
  compression: text("zstd"),
  level: count(1),
  engine: optional(text("")),
  channels: count(2),
  verify: flag(),
});

/** A receiver's threads compile their page path while nobody has connected yet. */
const SETTLE_MS = 1000;

const side = new BenchSide();
const library = await import("../mod.ts");
const { libraryCompression } = await import("./ours_transfer.ts");
const block = library.RamBlock.allocate("pc.ram", values.bytes, { prefault: true });
side.startCounting(block.bytes);
await using receiver = await library.listen({
  endpoint: "127.0.0.1:0",
  channels: values.channels,
  compression: libraryCompression(values.compression, values.level, values.engine),
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
