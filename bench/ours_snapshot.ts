/**
 * This library's part of the snapshot benchmark, a process for each save and each restore; started
 * by snapshot.ts.
 *
 * The library is imported late, so that what it needs counts as its own and not as Bun's.
 */

import type { RamBlock } from "../mod.ts";
import { BenchSide } from "./bench_process.ts";
import { count, flag, readSettings, text } from "./settings.ts";

const values = readSettings({
  mode: text("save"),
  image: text(""),
  file: text(""),
  channels: count(2),
  direct: flag(),
});

const side = new BenchSide();
const { createSnapshot, openSnapshot, RamBlock: Block } = await import("../mod.ts");
using original = await openSnapshot(values.image);
const { channels, direct: directIo } = values;
const onNotice = (notice: string): void => console.error(notice);

if (values.mode === "save") {
  const { blocks } = await original.load({ prefault: true });
  const guestState = original.guestState();
  side.report({ ready: true });
  await side.word();
  side.startCounting(sizeOf(blocks));
  const openMs = performance.now();
  const options = { path: values.file, blocks, guestState, channels, directIo, onNotice };
  await using writer = await createSnapshot({ ...options, sync: false });
  side.endSetUp();
  const startMs = performance.now();
  await writer.write();
  const { wireBytes } = await writer.complete();
  finish(openMs, startMs, wireBytes);
} else {
  const blocks = original.blocks.map(({ idstr, bytes, pageSize }) =>
    Block.allocate(idstr, bytes, { pageSize, prefault: true }),
  );
  side.report({ ready: true });
  await side.word();
  side.startCounting(sizeOf(blocks));
  const openMs = performance.now();
  using file = await openSnapshot(values.file);
  const options = { blocks, zeroed: true, channels, directIo, onNotice };
  await using prepared = await file.prepareLoad(options);
  side.endSetUp();
  const startMs = performance.now();
  const { statistics } = await prepared.load();
  finish(openMs, startMs, statistics.wireBytes);
  // Out of the clock: a fast restore of something else would not be worth much.
  const reference = (await original.load()).blocks;
  const wrong = reference.findIndex((block, index) => !isEqual(block, blocks[index]));
  console.log(JSON.stringify({ verified: wrong < 0 }));
}

function finish(openMs: number, startMs: number, wireBytes: number): void {
  const seconds = (performance.now() - startMs) / 1000;
  side.report({
    ...side.counts(),
    seconds,
    setUpSeconds: (startMs - openMs) / 1000,
    wireBytes,
  });
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
