/**
 * The sending side of this library's transfers; started by ours_transfer.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { open } from "node:fs/promises";
import { parseArgs } from "node:util";
import type { GuestState, RamBlock } from "../mod.ts";
import { BenchSide } from "./bench_process.ts";

const { values } = parseArgs({
  options: {
    image: { type: "string", default: "" },
    /** In place of an image: a mapped-ram file, with the rest of its guest, for a QEMU. */
    snapshot: { type: "string" },
    endpoint: { type: "string", default: "" },
    compression: { type: "string", default: "zstd" },
    level: { type: "string", default: "1" },
    engine: { type: "string" },
    channels: { type: "string", default: "2" },
  },
});

const side = new BenchSide();
const library = await import("../mod.ts");
const { libraryCompression } = await import("./ours_transfer.ts");
const { blocks, state } =
  values.snapshot === undefined ? await loadImage(values.image) : await loadGuest(values.snapshot);
side.report({ ready: true });
await side.word();

side.startCounting(blocks.reduce((sum, { bytes }) => sum + bytes, 0));
const connectMs = performance.now();
await using sender = await library.connect({
  endpoint: values.endpoint,
  channels: Number(values.channels),
  compression: libraryCompression(values.compression, Number(values.level), values.engine),
  blocks,
  state,
});
side.endSetUp();
const startMs = performance.now();
await sender.send();
const { wireBytes } = await sender.complete();
const seconds = (performance.now() - startMs) / 1000;
const setUpSeconds = (startMs - connectMs) / 1000;
side.report({ ...side.counts(), seconds, setUpSeconds, wireBytes });

/** What is sent: memory, and with a guest all that is not memory. */
interface Content {
  readonly blocks: readonly RamBlock[];
  readonly state?: GuestState | undefined;
}

async function loadGuest(path: string): Promise<Content> {
  using snapshot = library.openMappedRamFile(path);
  const loaded = await snapshot.load({ prefault: true });
  return { blocks: loaded.blocks, state: snapshot.guestState() };
}

async function loadImage(path: string): Promise<Content> {
  const { size } = Bun.file(path);
  const block = library.RamBlock.allocate("pc.ram", size, { prefault: true });
  await load(block, path);
  return { blocks: [block] };
}

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
