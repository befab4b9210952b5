/**
 * The sending side of this library's transfers.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import { open } from "node:fs/promises";
import type { ConnectOptions, GuestState, RamBlock } from "../mod.ts";
import { BenchSide, sideOptions } from "./bench_process.ts";
import { residentMemory } from "./cpu_time.ts";

/** What {@link transferBetween} tells this side. */
export interface SenderSide {
  /** Raw RAM, or a snapshot with the rest of its guest, for a QEMU. */
  readonly image?: string | undefined;
  readonly snapshot?: string | undefined;
  readonly endpoint: string;
  /** Anything else that `connect()` is to be given. */
  readonly session: Partial<ConnectOptions>;
}

const PIECE_BYTES = 1_048_576;

const { image = "", snapshot: guest, endpoint, session } = sideOptions() as SenderSide;
const side = new BenchSide();
const library = await import("../mod.ts");
const emptyBytes = residentMemory().rssBytes;
const loaded = guest === undefined ? await loadImage(image) : await loadGuest(guest);
Bun.gc(true);
const contentBytes = residentMemory().rssBytes - emptyBytes;
await side.ready();

side.startCounting(contentBytes);
const connectMs = performance.now();
await using sender = await library.connect({ ...loaded, ...session, endpoint });
side.endSetUp();
const startMs = performance.now();
await sender.send();
const { wireBytes } = await sender.complete();
side.finish(connectMs, startMs, wireBytes);

/** What is sent: memory, and with a guest all that is not memory. */
interface Content {
  readonly blocks: readonly RamBlock[];
  readonly state?: GuestState | undefined;
}

async function loadGuest(path: string): Promise<Content> {
  using snapshot = await library.openSnapshot(path);
  const { blocks } = await snapshot.load();
  return { blocks, state: snapshot.guestState() };
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
