/**
 * This library's part of the snapshot benchmark, a process for each save and each restore; started
 * by snapshot.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import type { RamBlock } from "../mod.ts";
import { BenchSide, sideOptions } from "./bench_process.ts";

/** One save or restore. */
export interface SnapshotSide {
  readonly mode: "save" | "restore";
  /** Where the guest comes from. */
  readonly image: string;
  readonly file: string;
  readonly channels: number;
  readonly directIo: boolean;
}

const { mode, image, file: path, ...how } = sideOptions() as SnapshotSide;
const side = new BenchSide();
const { createSnapshot, openSnapshot, RamBlock: Block } = await import("../mod.ts");
using original = await openSnapshot(image);
const options = { ...how, onNotice: (notice: string): void => console.error(notice) };

if (mode === "save") {
  const { blocks } = await original.load({ prefault: true });
  const guestState = original.guestState();
  await side.ready();
  side.startCounting(sizeOf(blocks));
  const openMs = performance.now();
  await using writer = await createSnapshot({ ...options, path, blocks, guestState, sync: false });
  side.endSetUp();
  const startMs = performance.now();
  await writer.write();
  const { wireBytes } = await writer.complete();
  side.finish(openMs, startMs, wireBytes);
} else {
  const blocks = original.blocks.map(({ idstr, bytes, pageSize }) =>
    Block.allocate(idstr, bytes, { pageSize, prefault: true }),
  );
  await side.ready();
  side.startCounting(sizeOf(blocks));
  const openMs = performance.now();
  using file = await openSnapshot(path);
  await using prepared = await file.prepareLoad({ ...options, blocks, zeroed: true });
  side.endSetUp();
  const startMs = performance.now();
  const { statistics } = await prepared.load();
  side.finish(openMs, startMs, statistics.wireBytes);
  // Out of the clock: a fast restore of something else would not be worth much.
  const reference = (await original.load()).blocks;
  const wrong = reference.findIndex((block, index) => !isEqual(block, blocks[index]));
  console.log(JSON.stringify({ verified: wrong < 0 }));
}

function sizeOf(blocks: readonly RamBlock[]): number {
  return blocks.reduce((sum, { bytes }) => sum + bytes, 0);
}

function isEqual(left: RamBlock, right: RamBlock | undefined): boolean {
  if (right === undefined) return false;
  const others = right.views();
  for (const view of left.views()) {
    const other = others.next();
    if (other.done === true || Buffer.compare(view, other.value) !== 0) return false;
  }
  return true;
}
