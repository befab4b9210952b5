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

/** How many runs are behind the figures of one contender. */
interface RunCounts {
  readonly runs: number;
  /** Runs during which the machine did something else as well. */
  readonly noisyRuns: number;
  /** Whether the figures had to include such runs, because there were too few others. */
  readonly noisy: boolean;
}

/** What the runs of one contender come to. */
export type Figures<Name extends string> = Readonly<Record<Name, Spread>> & RunCounts;

/**
 * Sums up the runs of one contender. Disturbed runs are left out as long as at least half of the
 * wanted number remain.
 *
 * @param figures What is to be told of each run.
 */
export function sumUp<Run extends { readonly noisy: boolean }, Name extends string>(
  all: readonly Run[],
  runsWanted: number,
  figures: Readonly<Record<Name, (run: Run) => number>>,
): Figures<Name> {
  const quiet = all.filter((run) => !run.noisy);
  const noisy = quiet.length < runsWanted / 2;
  const runs = noisy ? all : quiet;
  const spreads = Object.entries<(run: Run) => number>(figures).map(
    ([name, figure]) => [name, spread(runs.map(figure))] as const,
  );
  return {
    ...(Object.fromEntries(spreads) as Record<Name, Spread>),
    runs: runs.length,
    noisyRuns: all.length - quiet.length,
    noisy,
  };
}

/** What the transfers of one contender come to. */
export type Summary = ReturnType<typeof summarize>;

/** Sums up transfers of `imageBytes` of RAM. */
export function summarize(all: readonly TransferRun[], runsWanted: number, imageBytes: number) {
  const gib = imageBytes / GIB;
  return sumUp(all, runsWanted, {
    /** GiB of RAM a second, by the contender's clock. */
    gibPerSecond: (run) => gib / run.seconds,
    seconds: (run) => run.seconds,
    /** Connecting and starting channels, where it is not within `seconds`. */
    setUpSeconds: (run) => run.setUpSeconds,
    /** Both sides, set-up included, for a GiB of RAM. */
    cpuSecondsPerGib: (run) => (run.cpuSecondsSender + run.cpuSecondsReceiver) / gib,
    /** Of both sides together, what listening and connecting took; does not grow with the RAM. */
    setUpCpuSeconds: (run) => run.setUpCpuSeconds,
    cpuSecondsSender: (run) => run.cpuSecondsSender,
    cpuSecondsReceiver: (run) => run.cpuSecondsReceiver,
    /** Bytes on all connections. */
    wireBytes: (run) => run.wireBytes,
    /** Resident beyond the RAM and what was there before the transfer. */
    extraBytesSender: (run) => run.memorySender.extraBytes,
    extraBytesReceiver: (run) => run.memoryReceiver.extraBytes,
  });
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
  return {
    ratio: other.seconds.median / ours.seconds.median,
    withSetUp: allInSeconds(other) / allInSeconds(ours),
  };
}

function allInSeconds({ seconds, setUpSeconds }: Summary): number {
  return seconds.median + setUpSeconds.median;
}

const COLUMNS: readonly (readonly [title: string, cell: (summary: Summary) => string])[] = [
  ["GiB/s min", ({ gibPerSecond }) => gibPerSecond.min.toFixed(2)],
  ["median", ({ gibPerSecond }) => gibPerSecond.median.toFixed(2)],
  ["max", ({ gibPerSecond }) => gibPerSecond.max.toFixed(2)],
  ["ms", ({ seconds }) => (seconds.median * 1000).toFixed(0)],
  ["set-up ms", ({ setUpSeconds }) => (setUpSeconds.median * 1000).toFixed(0)],
  ["all in ms", (one) => (allInSeconds(one) * 1000).toFixed(0)],
  ["set-up CPU s", ({ setUpCpuSeconds }) => setUpCpuSeconds.median.toFixed(2)],
  ["CPU s/GiB", ({ cpuSecondsPerGib }) => spreadText(cpuSecondsPerGib)],
  ["wire MB", ({ wireBytes }) => (wireBytes.max / 1e6).toFixed(1)],
  ["extra MiB", (one) => `${mib(one.extraBytesSender.max)} + ${mib(one.extraBytesReceiver.max)}`],
  ["runs", ({ runs, noisy }) => `${runs}${noisy ? " (noisy)" : ""}`],
];

/**
 * Draws the table, one contender a line.
 *
 * @param reference Name of the contender that all are compared with, set-up apart and all in.
 */
export function table(summaries: ReadonlyMap<string, Summary>, reference?: string): string {
  const other = reference === undefined ? undefined : summaries.get(reference);
  const columns = [...COLUMNS];
  if (other !== undefined) {
    columns.push([`of ${reference}`, (one) => compare(one, other).ratio.toFixed(2)]);
    columns.push(["all in", (one) => compare(one, other).withSetUp.toFixed(2)]);
  }
  return draw([
    ["", ...columns.map(([title]) => title)],
    ...[...summaries].map(([name, summary]) => [name, ...columns.map(([, cell]) => cell(summary))]),
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
