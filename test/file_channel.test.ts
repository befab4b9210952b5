import { expect, test } from "bun:test";
import { FileChannel, type PageFile } from "../lib/snapshot/file_channel.ts";
import { FileBlock, FileRound } from "../lib/snapshot/file_round.ts";
import { StatisticsTable } from "../lib/engine/statistics.ts";
import { PageBitmap, RamBlock } from "../mod.ts";

const MIB = 1 << 20;
const PAGE = 4096;

/** A round that gives out windows as a test wants them. */
class ScriptedRound extends FileRound {
  readonly #windows: number[];

  constructor(windows: readonly number[]) {
    super();
    this.#windows = [...windows];
  }

  override takeWindow(): number {
    return this.#windows.shift() ?? Infinity;
  }
}

/** Notes what is read and written instead of doing it. */
class NotedFile implements PageFile {
  readonly calls: [address: number, bytes: number, offset: number][] = [];

  read(address: number, bytes: number, offset: number): void {
    this.calls.push([address, bytes, offset]);
  }

  write(address: number, bytes: number, offset: number): void {
    this.calls.push([address, bytes, offset]);
  }

  [Symbol.dispose](): void {}
}

function fileBlock(ram: RamBlock, pagesOffset: number, pages: readonly number[]): FileBlock {
  const [pending, present] = [new PageBitmap(ram.pages), new PageBitmap(ram.pages)];
  pending.setRange(0, ram.pages);
  for (const page of pages) present.set(page);
  const share = { ram: ram.share(), pagesOffset };
  return new FileBlock({ ...share, pending: pending.buffer, present: present.buffer });
}

function run(
  mode: "read" | "write",
  blocks: readonly FileBlock[],
  round: FileRound,
): NotedFile["calls"] {
  const file = new NotedFile();
  const counters = new StatisticsTable(1).channel(0);
  const parts = { mode, detectZeroPages: true, file, blocks, round, counters };
  new FileChannel({ ...parts, control: { stopping: false } }).run();
  return file.calls;
}

test("FileChannel reads runs of present pages, none across a window of 1 MiB", () => {
  const ram = RamBlock.allocate("pc.ram", 2 * MIB + 3 * PAGE);
  const pages = [0, 2, 3, ...Array.from({ length: 20 }, (_, index) => 246 + index), 514];
  const base = ram.addressAt(0);
  const block = fileBlock(ram, 7 * MIB, pages);
  expect(run("read", [block], new ScriptedRound([0, 1, 2]))).toEqual(
    [
      [0, 1],
      [2, 2],
      [246, 10],
      [256, 10],
      [514, 1],
    ].map(([first = 0, count = 0]) => [base + first * PAGE, count * PAGE, 7 * MIB + first * PAGE]),
  );
});

test("FileChannel writes runs of pages that are not zero and corrects their bits", () => {
  const ram = RamBlock.allocate("pc.ram", MIB);
  for (const page of [0, 1, 5, 255]) ram.view(page * PAGE, PAGE).fill(1);
  const block = fileBlock(ram, MIB, [1, 2, 3]);
  block.pending.clear(5); // not part of this pass
  const calls = run("write", [block], new ScriptedRound([0]));
  expect(calls.map(([, bytes, offset]) => [(offset - MIB) / PAGE, bytes / PAGE])).toEqual([
    [0, 2],
    [255, 1],
  ]);
  expect([...block.present.runs()]).toEqual([
    { start: 0, end: 2 },
    { start: 255, end: 256 },
  ]);
});

test("FileChannel goes on with the next pass when that begins before it saw the end of its own", () => {
  const rams = [RamBlock.allocate("a", 2 * MIB), RamBlock.allocate("b", MIB)];
  const blocks = rams.map((ram, index) => fileBlock(ram, (index + 1) * 100 * MIB, [0]));
  const round = new ScriptedRound([0, 2, 0, 2, 3]);
  const calls = run("read", blocks, round);
  expect(calls.map(([, , offset]) => offset / MIB)).toEqual([100, 200, 100, 200]);
  expect(round.finished).toBe(4);
});

test("FileBlock windows never cross memory in pieces", () => {
  const buffers = [0, 1, 2].map(() => new SharedArrayBuffer(65_536));
  const ram = RamBlock.fromBuffer("pc.ram", buffers, { pageSize: 16_384 });
  const block = fileBlock(ram, 0, [...Array(12).keys()]);
  expect([block.windows, block.windowPages]).toEqual([3, 4]);
  const calls = run("read", [block], new ScriptedRound([0, 1, 2]));
  expect(calls).toEqual(
    [0, 1, 2].map((piece) => [ram.segments[piece]!.address, 65_536, piece * 65_536]),
  );
});

test("FileRound gives out every window once a pass, in stretches that get shorter", () => {
  const round = new FileRound();
  const [first, second] = [new FileRound(round.buffer), new FileRound(round.buffer)];
  for (const windows of [1000, 7]) {
    round.reset(windows, 4, 128);
    const taken = [first.takeWindow(), second.takeWindow()];
    const shareOf = (left: number): number => Math.min(128, Math.ceil(left / 4));
    const stretch = shareOf(windows);
    expect(taken).toEqual([0, stretch]);
    for (const channel of [first, second]) {
      for (let window = channel.takeWindow(); window < windows; window = channel.takeWindow()) {
        taken.push(window);
      }
    }
    // The first channel took the rest while the second one had its stretch in hand.
    expect(taken.at(-1)).toBe(stretch + shareOf(windows - stretch) - 1);
    expect(taken.toSorted((left, right) => left - right)).toEqual([...Array(windows).keys()]);
  }
  expect(first.takeWindow()).toBe(7);
});
