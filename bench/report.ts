/**
 * From single runs to figures one may quote: medians with their spread, as a table and as JSON.
 *
 * @module
 */

import { max, median, min } from "simple-statistics";
import type { TransferRun } from "./contender.ts";

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** A figure over all counted runs. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** What the runs of one contender come to. */
export interface Summary {
  /** GiB of RAM a second, by the contender's clock. */
  readonly gibPerSecond: Spread;
  readonly seconds: Spread;
  /** Connecting and starting channels, where it is not within `seconds`. */
  readonly setUpSeconds: Spread;
  /** Both sides, set-up included, for a GiB of RAM. */
  readonly cpuSecondsPerGib: Spread;
  /** Of both sides together, what listening and connecting took; does not grow with the RAM. */
  readonly setUpCpuSeconds: Spread;
  readonly cpuSecondsSender: Spread;
  readonly cpuSecondsReceiver: Spread;
  /** Bytes on all connections; the largest run's. */
  readonly wireBytes: number;
  /** Resident beyond the RAM and what was there before the transfer; the largest run's. */
  readonly extraBytesSender: number;
  readonly extraBytesReceiver: number;
  /** Runs behind these figures. */
  readonly runs: number;
  /** Runs during which the machine did something else as well. */
  readonly noisyRuns: number;
  /** Whether the figures had to include such runs, because there were too few others. */
  readonly noisy: boolean;
}

/**
 * Sums up the runs of one contender. Disturbed runs are left out as long as at least half of the
 * wanted number remain.
 */
export function summarize(
  all: readonly TransferRun[],
  runsWanted: number,
  imageBytes: number,
): Summary {
  const quiet = all.filter((run) => !run.noisy);
  const noisy = quiet.length < runsWanted / 2;
  const runs = noisy ? all : quiet;
  const gib = imageBytes / GIB;
  const over = (figure: (run: TransferRun) => number): Spread => spread(runs.map(figure));
  return {
    gibPerSecond: over((run) => gib / run.seconds),
    seconds: over((run) => run.seconds),
    setUpSeconds: over((run) => run.setUpSeconds),
    cpuSecondsPerGib: over((run) => (run.cpuSecondsSender + run.cpuSecondsReceiver) / gib),
    setUpCpuSeconds: over((run) => run.setUpCpuSeconds),
    cpuSecondsSender: over((run) => run.cpuSecondsSender),
    cpuSecondsReceiver: over((run) => run.cpuSecondsReceiver),
    wireBytes: over((run) => run.wireBytes).max,
    extraBytesSender: over((run) => run.memorySender.extraBytes).max,
    extraBytesReceiver: over((run) => run.memoryReceiver.extraBytes).max,
    runs: runs.length,
    noisyRuns: all.length - quiet.length,
    noisy,
  };
}

/** Median and range of at least one figure. */
export function spread(values: readonly number[]): Spread {
  const list = [...values];
  return { min: min(list), median: median(list), max: max(list) };
}

/** How many times as fast one contender is as another, by their medians. */
export interface Ratio {
  readonly ratio: number;
  /** The same with the set-up time on both clocks. */
  readonly withSetUp: number;
}

/** Compares two contenders of one benchmark. */
export function compare(ours: Summary, other: Summary): Ratio {
  const whole = (summary: Summary): number => summary.seconds.median + summary.setUpSeconds.median;
  return {
    ratio: other.seconds.median / ours.seconds.median,
    withSetUp: whole(other) / whole(ours),
  };
}

const COLUMNS: readonly (readonly [title: string, cell: (summary: Summary) => string])[] = [
  ["GiB/s min", ({ gibPerSecond }) => gibPerSecond.min.toFixed(2)],
  ["median", ({ gibPerSecond }) => gibPerSecond.median.toFixed(2)],
  ["max", ({ gibPerSecond }) => gibPerSecond.max.toFixed(2)],
  ["set-up ms", ({ setUpSeconds }) => (setUpSeconds.median * 1000).toFixed(0)],
  ["set-up CPU s", ({ setUpCpuSeconds }) => setUpCpuSeconds.median.toFixed(2)],
  ["CPU s/GiB", ({ cpuSecondsPerGib }) => spreadText(cpuSecondsPerGib)],
  ["wire MB", ({ wireBytes }) => (wireBytes / 1e6).toFixed(1)],
  [
    "extra MiB",
    (summary) => `${mib(summary.extraBytesSender)} + ${mib(summary.extraBytesReceiver)}`,
  ],
  ["runs", ({ runs, noisy }) => `${runs}${noisy ? " (noisy)" : ""}`],
];

/** Draws the table, one contender a line. */
export function table(summaries: ReadonlyMap<string, Summary>): string {
  return draw([
    ["", ...COLUMNS.map(([title]) => title)],
    ...[...summaries].map(([name, summary]) => [name, ...COLUMNS.map(([, cell]) => cell(summary))]),
  ]);
}

/** Draws rows as columns: names on the left, figures on the right. */
export function draw(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, at) => max(rows.map((row) => row[at]?.length ?? 0))) ?? [];
  const pad = (cell: string, at: number): string =>
    at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0);
  return rows.map((row) => row.map(pad).join("  ")).join("\n");
}

function spreadText({ min: least, median: middle, max: most }: Spread): string {
  return `${middle.toFixed(2)} [${least.toFixed(2)}-${most.toFixed(2)}]`;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(0);
}
