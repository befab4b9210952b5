/**
 * What COLO costs: how long a checkpoint holds up the primary, by the share of pages that changed,
 * over several channels, over one, and when everything is sent; and what finding the changed pages
 * costs with each way of tracking.
 *
 * Everything compared is interleaved, since small machines change their speed from minute to minute.
 */

import { max, median, quantile } from "simple-statistics";
import {
  connectPrimary,
  PageBitmap,
  RamBlock,
  trackDirtyPages,
  type CheckpointStatistics,
  type ColoPrimary,
  type TrackingMethod,
} from "../mod.ts";
import { BenchProcess, type ListenReport } from "./bench_process.ts";
import { COMPARABLE_METHODS, compressionOf } from "./contender.ts";
import { machineDescription, waitIdle, watchMachine } from "./idle_machine.ts";
import { draw } from "./report.ts";
import { choice, count, counts, json, runBenchmark, type Values } from "./settings.ts";

const SETTINGS = {
  mib: count(1024, "memory of the primary, a power of two", 1, 1024),
  dirty: counts([1, 10, 50, 100], "percent of the pages that change; 100 sends everything", 1, 100),
  channels: counts([4, 1], "", 1, 255),
  compression: choice(COMPARABLE_METHODS, "none", COMPARABLE_METHODS.join(", ")),
  level: count(1, "of zlib and zstd", 0, 22),
  checkpoints: count(15, "of each kind, after two that do not count", 1, 10_000),
  json,
};

type Settings = Values<typeof SETTINGS>;

const MIB = 2 ** 20;
const PAGE = 4096;
const WARM_UP = 2;
const METHODS: readonly TrackingMethod[] = ["bitmap", "compare", "write-protect"];

/** A secondary process and the primary's end of the pair. */
interface Pair {
  readonly channels: number;
  readonly primary: ColoPrimary;
  readonly secondary: BenchProcess;
}

async function makePair(settings: Settings, block: RamBlock, channels: number): Promise<Pair> {
  const session = { channels, compression: compressionOf(settings) };
  const secondary = new BenchProcess(["colo_secondary.ts", session]);
  const { endpoint } = await secondary.next<ListenReport>();
  const primary = await connectPrimary({
    ...session,
    endpoint,
    blocks: [block],
    zeroPageDetection: "multifd",
  });
  await primary.start();
  return { channels, primary, secondary };
}

/** Counts the calls below, so that each writes what was nowhere before. */
let changes = 0;

/** Changes that share of the pages, all over the block, and says which. */
function change(block: RamBlock, percent: number): PageBitmap {
  changes++;
  const dirty = new PageBitmap(block.pages);
  const memory = new Uint32Array(block.segments[0]!.buffer!);
  const changed = Math.ceil((block.pages * percent) / 100);
  for (let index = 0; index < changed; index++) {
    // An odd factor meets every page of a power of two once.
    const page = (Math.imul(index, 0x9e37_79b1) >>> 0) % block.pages;
    memory[(page * PAGE) / 4 + (changes % (PAGE / 4))] = changes;
    dirty.set(page);
  }
  return dirty;
}

/** Memory without zero pages that compresses about as guests do. */
function fill(block: RamBlock): void {
  const memory = new Uint32Array(block.segments[0]!.buffer!);
  let random = 1;
  for (let index = 0; index < memory.length; index++) {
    if (index % 3 === 0) random = Math.imul(random ^ (random >>> 15), 0x2c1b_3c6d) + 0x9e37_79b1;
    memory[index] = random;
  }
}

interface CheckpointRow {
  readonly channels: number;
  readonly dirtyPercent: number;
  readonly mib: number;
  readonly wireMib: number;
  readonly pauseMs: number;
  readonly pauseMs99: number;
  readonly transferMs: number;
  readonly applyMs: number;
  readonly checkpoints: number;
}

async function measureCheckpoints(settings: Settings, block: RamBlock): Promise<CheckpointRow[]> {
  const pairs: Pair[] = [];
  for (const channels of settings.channels) pairs.push(await makePair(settings, block, channels));
  const kinds = pairs.flatMap((pair) =>
    settings.dirty.map((dirtyPercent) => ({
      pair,
      dirtyPercent,
      records: [] as CheckpointStatistics[],
    })),
  );
  for (let turn = 0; turn < settings.checkpoints + WARM_UP; turn++) {
    const order = [...kinds];
    order.push(...order.splice(0, turn % order.length));
    for (const { pair, dirtyPercent, records } of order) {
      const record = await pair.primary.checkpoint(change(block, dirtyPercent));
      if (turn >= WARM_UP) records.push(record);
    }
  }
  for (const { primary, secondary } of pairs) {
    await primary.takeOver();
    await secondary[Symbol.asyncDispose]();
  }
  return kinds.map(({ pair, dirtyPercent, records }) => {
    const middle = (pick: (record: CheckpointStatistics) => number) => median(records.map(pick));
    return {
      channels: pair.channels,
      dirtyPercent,
      mib: (middle(({ pages }) => pages) * PAGE) / MIB,
      wireMib: middle(({ wireBytes }) => wireBytes) / MIB,
      pauseMs: middle(({ pauseMs }) => pauseMs),
      pauseMs99: quantile(
        records.map(({ pauseMs }) => pauseMs),
        0.99,
      ),
      transferMs: middle(({ transferMs }) => transferMs),
      applyMs: middle(({ applyMs }) => applyMs),
      checkpoints: records.length,
    };
  });
}

interface TrackingRow {
  readonly method: TrackingMethod;
  readonly dirtyPercent: number;
  /** Changing the pages while they are tracked, milliseconds for each GiB of memory. */
  readonly writeMsPerGib: number;
  readonly fetchMsPerGib: number;
  readonly fetchMsPerGibMax: number;
}

async function measureTracking(settings: Settings, block: RamBlock): Promise<TrackingRow[]> {
  const shares = [0, ...settings.dirty];
  const gib = settings.mib / 1024;
  const times = new Map<string, { write: number[]; fetch: number[] }>();
  const runs = Math.max(3, Math.ceil(settings.checkpoints / 5));
  for (let run = 0; run < runs; run++) {
    for (const method of METHODS) {
      const bitmap = new PageBitmap(block.pages);
      using tracker = await trackDirtyPages(block, { method, bitmap }).catch(() => undefined);
      if (tracker === undefined) {
        if (run === 0) console.error(`${method} left out: this kernel does not have it`);
        continue;
      }
      for (const share of shares) {
        const start = performance.now();
        const changed = change(block, share);
        const written = performance.now();
        if (method === "bitmap") changed.drainInto(bitmap);
        const dirty = new PageBitmap(block.pages);
        const fetchStart = performance.now();
        await tracker.fetch(dirty);
        const end = performance.now();
        const expected = Math.ceil((block.pages * share) / 100);
        if (dirty.count() !== expected) {
          throw new Error(`Cannot count ${method}: ${dirty.count()} pages, must be ${expected}`);
        }
        const key = `${method} ${share}`;
        const kept = times.get(key) ?? { write: [], fetch: [] };
        times.set(key, kept);
        kept.write.push((written - start) / gib);
        kept.fetch.push((end - fetchStart) / gib);
      }
    }
  }
  return METHODS.flatMap((method) =>
    shares.flatMap((dirtyPercent): TrackingRow[] => {
      const found = times.get(`${method} ${dirtyPercent}`);
      if (found === undefined) return [];
      return [
        {
          method,
          dirtyPercent,
          writeMsPerGib: median(found.write),
          fetchMsPerGib: median(found.fetch),
          fetchMsPerGibMax: max(found.fetch),
        },
      ];
    }),
  );
}

/** Rows as a table with the names of their fields. */
function table(rows: readonly object[]): string {
  const cell = (value: unknown): string =>
    typeof value === "number" && !Number.isInteger(value) ? value.toFixed(1) : String(value);
  return draw([Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row).map(cell))]);
}

async function main(settings: Settings): Promise<void> {
  if (!Number.isInteger(Math.log2(settings.mib))) {
    throw new RangeError(`Cannot use --mib ${settings.mib}: must be a power of two`);
  }
  const block = RamBlock.allocate("pc.ram", settings.mib * MIB, { prefault: true });
  fill(block);
  const idle = await waitIdle();
  if (!idle) console.error("The machine is busy: the figures below do not count");
  const { compression, level, mib } = settings;
  console.log(machineDescription());
  console.log(
    `${mib} MiB, ${compression}${compression === "none" ? "" : ` level ${level}`}, ${settings.checkpoints} checkpoints of each kind`,
  );
  const watch = watchMachine();
  const checkpoints = await measureCheckpoints(settings, block);
  const { stealSeconds } = watch(0);
  console.log(table(checkpoints));
  const tracking = await measureTracking(settings, block);
  console.log(table(tracking));
  if (!settings.json) return;
  const machine = machineDescription();
  console.log(JSON.stringify({ machine, settings, idle, stealSeconds, checkpoints, tracking }));
}

await runBenchmark("colo", SETTINGS, main);
