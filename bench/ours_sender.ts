/**
 * The sending side of this library's transfers; started by ours_transfer.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { open } from "node:fs/promises";
import type { GuestState, RamBlock } from "../mod.ts";
import { BenchSide } from "./bench_process.ts";
import { residentMemory } from "./cpu_time.ts";
import { count, optional, readSettings, text } from "./settings.ts";

const values = readSettings({
  image: text(""),
  /** In place of an image: a mapped-ram file, with the rest of its guest, for a QEMU. */
  snapshot: optional(text("")),
  endpoint: text(""),
  compression: text("zstd"),
  level: count(1),
  engine: optional(text("")),
  channels: count(2),
});

const PIECE_BYTES = 1_048_576;

const side = new BenchSide();
const library = await import("../mod.ts");
const { libraryCompression } = await import("./ours_transfer.ts");
const emptyBytes = residentMemory(process.pid).rssBytes;
const { blocks, state } =
  values.snapshot === undefined ? await loadImage(values.image) : await loadGuest(values.snapshot);
Bun.gc(true);
const contentBytes = residentMemory(process.pid).rssBytes - emptyBytes;
side.report({ ready: true });
await side.word();

side.startCounting(contentBytes);
const connectMs = performance.now();
await using sender = await library.connect({
  endpoint: values.endpoint,
  channels: values.channels,
  compression: libraryCompression(values.compression, values.level, values.engine),
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
  using snapshot = await library.openSnapshot(path);
  const loaded = await snapshot.load();
  return { blocks: loaded.blocks, state: snapshot.guestState() };
}

async function loadImage(path: string): Promise<Content> {
  const { size } = Bun.file(path);
  const block = library.RamBlock.allocate("pc.ram", size);
  await load(block, path);
  return { blocks: [block] };
}

/** Leaves zero pages untouched, as a QEMU does that has loaded the same guest from its snapshot. */
async function load(target: RamBlock, path: string): Promise<void> {
  await using file = await open(path);
  const page = new Uint8Array(target.pageSize);
  const piece = new Uint8Array(PIECE_BYTES);
  for (let at = 0; at < target.bytes; at += PIECE_BYTES) {
    const { bytesRead } = await file.read(piece, 0, Math.min(PIECE_BYTES, target.bytes - at), at);
    if (bytesRead < Math.min(PIECE_BYTES, target.bytes - at)) {
      throw new Error(`Cannot load ${path}: it became shorter, must not change`);
    }
    for (let within = 0; within < bytesRead; within += page.length) {
      const content = piece.subarray(within, within + page.length);
      if (Buffer.compare(content, page) !== 0) target.view(at + within, page.length).set(content);
    }
  }
}
