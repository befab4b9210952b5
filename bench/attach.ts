/**
 * How soon an attached snapshot can be used, beside loading it, and how long a touch of a page takes
 * that is not there: from the page cache and from a compressed file, with a thread that serves awake
 * and asleep.
 *
 *     bun bench/attach.ts --size 8192 --runs 5
 *
 * The memory is sparse. Each touch is of a page whose neighbours are not there either; what came in
 * beside it is not counted.
 *
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compressSnapshot, createSnapshot, openSnapshot, RamBlock } from "../mod.ts";
import { draw, spread } from "./report.ts";
import { count, json, runBenchmark, type Values } from "./settings.ts";

const MIB = 1 << 20;
const PAGE = 4096;
/** Pages that one fault may bring in. */
const STRIDE = 65_536 / PAGE;
/** A thread that serves sleeps before that. */
const ASLEEP_MS = 2;

const SETTINGS = {
  size: count(8192, "memory in MiB", 64),
  content: count(512, "MiB of it that are not zero", 32),
  frame: count(64, "KiB of a frame of the compressed file", 4),
  touches: count(2000, "touches of each kind", 10),
  runs: count(5, "runs of each", 1),
  json,
};

type Times = Map<string, number[]>;

const note = (times: Times, name: string, value: number): void =>
  void times.set(name, [...(times.get(name) ?? []), value]);

/** Text, so that it is compressed as memory is. */
async function save(plain: string, compressed: string, settings: Values<typeof SETTINGS>) {
  const block = RamBlock.allocate("pc.ram", settings.size * MIB);
  const line = new TextEncoder().encode("what a program keeps in its memory, page after page; ");
  const stretch = 4 * MIB;
  const every = Math.max(1, Math.floor(settings.size / settings.content)) * stretch;
  for (let at = 0; at + stretch <= block.bytes; at += every) {
    const view = block.view(at, stretch);
    for (let byte = 0; byte < stretch; byte += line.byteLength) {
      view.set(line.subarray(0, Math.min(line.byteLength, stretch - byte)), byte);
    }
    const words = new Uint32Array(view.buffer, view.byteOffset, stretch / 4);
    for (let word = 0; word < words.length; word += 16)
      words[word] = Math.imul(at + word, 2654435761);
  }
  await using writer = await createSnapshot({ path: plain, blocks: [block], sync: false });
  await writer.write();
  await writer.complete();
  using file = await openSnapshot(plain);
  await compressSnapshot(file, compressed, { level: 1, frameBytes: settings.frame * 1024 });
}

/** Pages with content whose neighbours are brought in by no other one of them, in any order. */
function pagesToTouch(present: { has(page: number): boolean }, pages: number): number[] {
  const found: number[] = [];
  for (let page = 0; page < pages; page += STRIDE) if (present.has(page)) found.push(page);
  for (let at = found.length - 1; at > 0; at--) {
    const other = Math.floor(Math.random() * (at + 1));
    [found[at], found[other]] = [found[other]!, found[at]!];
  }
  return found;
}

async function touch(path: string, name: string, times: Times, settings: Values<typeof SETTINGS>) {
  using snapshot = await openSnapshot(path);
  const start = performance.now();
  await using attached = await snapshot.attach({ channels: 0 });
  note(times, `${name}: attached, ms`, performance.now() - start);
  const block = attached.blocks[0]!;
  const first = performance.now();
  block.view(0, 1).at(0);
  note(times, `${name}: its first page, ms`, performance.now() - first);
  const pages = pagesToTouch(snapshot.blocks[0]!.present, block.pages);
  const page = (): Uint8Array => block.view((pages.pop() ?? 0) * PAGE, 1);
  const all: number[] = [];
  for (let turn = 0; turn < settings.touches; turn++) {
    const view = page();
    const begin = performance.now();
    view.at(0);
    all.push((performance.now() - begin) * 1000);
  }
  const warm = all.slice(all.length / 4); // what runs for the first time is not compiled yet
  for (const value of warm) note(times, `${name}: a fault, µs`, value);
  for (let turn = 0; turn < settings.touches / 20; turn++) {
    const view = page();
    await Bun.sleep(ASLEEP_MS);
    const begin = performance.now();
    view.at(0);
    note(times, `${name}: a fault once it sleeps, µs`, (performance.now() - begin) * 1000);
  }
  return warm;
}

async function load(path: string, name: string, times: Times): Promise<void> {
  using snapshot = await openSnapshot(path);
  const start = performance.now();
  await snapshot.load({ channels: 2 });
  note(times, `${name}: loaded instead, ms`, performance.now() - start);
}

async function fill(path: string, name: string, times: Times): Promise<void> {
  using snapshot = await openSnapshot(path);
  const start = performance.now();
  await using attached = await snapshot.attach({ channels: 2 });
  await attached.resident();
  note(times, `${name}: all there behind it, ms`, performance.now() - start);
}

function histogram(values: readonly number[]): string {
  const limits = [5, 10, 20, 30, 40, 60, 80, 120, 200, 400, 1000, Infinity];
  let from = 0;
  return limits
    .map((limit) => {
      const some = values.filter((value) => value >= from && value < limit).length;
      from = limit;
      const bar = "#".repeat(Math.ceil((60 * some) / values.length));
      return `${`< ${limit} µs`.padStart(12)} ${String(some).padStart(6)} ${bar}`;
    })
    .join("\n");
}

await runBenchmark("attach", SETTINGS, async (settings) => {
  const folder = await mkdtemp(join(tmpdir(), "multifd-attach-"));
  const times: Times = new Map();
  const faults: Record<string, number[]> = {};
  try {
    const files = { plain: join(folder, "plain"), compressed: join(folder, "compressed") };
    await save(files.plain, files.compressed, settings);
    Bun.gc(true);
    for (let run = 0; run < settings.runs; run++) {
      for (const [name, path] of Object.entries(files)) {
        faults[name] = [...(faults[name] ?? []), ...(await touch(path, name, times, settings))];
        await fill(path, name, times);
        await load(path, name, times);
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const rows = [...times].map(([name, values]) => {
    const { median, min, max } = spread(values);
    const p99 = values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? NaN;
    return [name, ...[median, p99, min, max].map((value) => value.toFixed(1))];
  });
  console.log(draw([["", "median", "99 %", "least", "most"], ...rows]));
  for (const [name, values] of Object.entries(faults)) {
    console.log(`faults, ${name}, ${values.length}:\n${histogram(values)}`);
  }
  if (settings.json) console.log(JSON.stringify({ times: Object.fromEntries(times) }));
});
