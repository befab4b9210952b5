/**
 * The sending side of this library's transfers; started by ours_transfer.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { open } from "node:fs/promises";
import { parseArgs } from "node:util";
import type { RamBlock } from "../mod.ts";
import { BenchSide } from "./bench_process.ts";
import { libraryCompression } from "./ours_transfer.ts";

const { values } = parseArgs({
  options: {
    image: { type: "string", default: "" },
    endpoint: { type: "string", default: "" },
    compression: { type: "string", default: "zstd" },
    level: { type: "string", default: "1" },
    channels: { type: "string", default: "2" },
  },
});

const side = new BenchSide();
const library = await import("../mod.ts");
const { size } = Bun.file(values.image);
const block = library.RamBlock.allocate("pc.ram", size, { prefault: true });
await load(block, values.image);
side.report({ ready: true });
await side.word();

side.startCounting(block.bytes);
const connectMs = performance.now();
await using sender = await library.connect({
  endpoint: values.endpoint,
  channels: Number(values.channels),
  compression: libraryCompression(values.compression, Number(values.level)),
  blocks: [block],
});
side.endSetUp();
const startMs = performance.now();
await sender.send();
const { wireBytes } = await sender.complete();
const seconds = (performance.now() - startMs) / 1000;
const setUpSeconds = (startMs - connectMs) / 1000;
side.report({ ...side.counts(), seconds, setUpSeconds, wireBytes });

async function load(target: RamBlock, path: string): Promise<void> {
  await using file = await open(path);
  let at = 0;
  for (const view of target.views()) {
    for (let within = 0; within < view.byteLength;) {
      const left = view.byteLength - within;
      const { bytesRead } = await file.read(view, within, left, at + within);
      if (bytesRead === 0)
        throw new Error(`Cannot load ${path}: it became shorter, must not change`);
      within += bytesRead;
    }
    at += view.byteLength;
  }
}
