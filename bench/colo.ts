/**
 * What COLO costs: how long a checkpoint holds up the primary, by the share of pages that changed,
 * over several channels, over one, and when everything is sent; and what finding the changed pages
 * costs with each way of tracking.
 *
 * Everything compared is interleaved, since small machines change their speed from minute to minute.
 */

import { parseArgs } from "node:util";
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
import { COMPARABLE_METHODS } from "./contender.ts";
import { machineDescription, waitIdle, watchMachine } from "./idle_machine.ts";
import { libraryCompression } from "./ours_transfer.ts";

const USAGE = `Usage: bun bench/colo.ts [options]
  --mib N               memory of the primary (default: 1024, a power of two)
  --dirty LIST          percent of the pages that change (default: 1,10,50,100; 100 sends everything)
  --channels LIST       (default: 4,1)
  --compression METHOD  ${COMPARABLE_METHODS.join(", ")} (default: none)
  --level N             of zlib and zstd (default: 1)
  --checkpoints N       of each kind, after two that do not count (default: 15)
  --json                print one JSON object as the last line of stdout`;

const MIB = 2 ** 20;
const PAGE = 4096;
const WARM_UP = 2;
const METHODS: readonly TrackingMethod[] = ["bitmap", "compare", "write-protect"];

interface Settings {
  readonly mib: number;
  readonly dirty: readonly number[];
  readonly channels: readonly number[];
  readonly compression: string;
  readonly level: number;
  readonly checkpoints: number;
  readonly json: boolean;
}

/** Wrong arguments: told with the usage, exit 2. */
class UsageError extends Error {}

function readSettings(args: string[]): Settings {
  const { values } = parseArgs({
    args,
    options: {
      mib: { type: "string", default: "1024" },
      dirty: { type: "string", default: "1,10,50,100" },
      channels: { type: "string", default: "4,1" },
      compression: { type: "string", default: "none" },
      level: { type: "string", default: "1" },
      checkpoints: { type: "string", default: "15" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const number = (option: string, text: string, least: number, most: number): number => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new UsageError(`Cannot use --${option} ${text}: must be ${least} to ${most}`);
  };
  const mib = number("mib", values.mib, 1, 1024);
  if (!Number.isInteger(Math.log2(mib))) {
    throw new UsageError(`Cannot use --mib ${mib}: must be a power of two`);
  }
  return {
    mib,
    dirty: values.dirty.split(",").map((text) => number("dirty", text, 1, 100)),
    channels: values.channels.split(",").map((text) => number("channels", text, 1, 255)),
    compression: values.compression,
    level: number("level", values.level, 0, 22),
    checkpoints: number("checkpoints", values.checkpoints, 1, 10_000),
    json: values.json,
  };
}

/** A secondary process and the primary's end of the pair. */
interface Pair {
  readonly channels: number;
  readonly primary: ColoPrimary;
  readonly process: Bun.Subprocess;
}

async function makePair(settings: Settings, block: RamBlock, channels: number): Promise<Pair> {
  const { compression, level } = settings;
  const common = ["--channels", String(channels), "--compression", compression];
  const script = new URL("colo_secondary.ts", import.meta.url).pathname;
  const child = Bun.spawn([process.execPath, script, ...common, "--level", String(level)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const { endpoint } = JSON.parse(new TextDecoder().decode(value)) as { endpoint: string };
  const primary = await connectPrimary({
    endpoint,
    channels,
    compression: libraryCompression(compression, level),
    blocks: [block],
    zeroPageDetection: "multifd",
  });
  await primary.start();
  return { channels, primary, process: child };
}

/** Counts the calls below, so that each writes what was nowhere before. */
let changes = 0;

/** Changes that share of the pages, all over the block, and says which. */
function change(block: RamBlock, percent: number): PageBitmap {
  changes++;
  const dirty = new PageBitmap(block.pages);
  const memory = new Uint32Array(block.segments[0]!.buffer!);
  const count = Math.ceil((block.pages * percent) / 100);
  for (let index = 0; index < count; index++) {
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
  for (const { primary, process: child } of pairs) {
    await primary.takeOver();
    await child.exited;
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
  const text = rows.map((row) =>
    Object.values(row).map((value: unknown) =>
      typeof value === "number" && !Number.isInteger(value) ? value.toFixed(1) : String(value),
    ),
  );
  const head = Object.keys(rows[0] ?? {});
  const widths = head.map((name, at) =>
    Math.max(name.length, ...text.map((cells) => cells[at]?.length ?? 0)),
  );
  return [head, ...text]
    .map((cells) => cells.map((cell, at) => cell.padStart(widths[at] ?? 0)).join("  "))
    .join("\n");
}

async function main(settings: Settings): Promise<void> {
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

try {
  await main(readSettings(process.argv.slice(2)));
  process.exit(0);
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const misused = error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS");
  console.error(misused ? `${message}\n${USAGE}` : message);
  process.exit(misused ? 2 : 1);
}
