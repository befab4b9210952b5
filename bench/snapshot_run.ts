/**
 * One save or restore in the snapshot benchmark, and medians over several.
 *
 * @module
 */

import { spread, type Spread } from "./report.ts";

/** What one save or restore took. */
export interface SnapshotRun {
  /** With threads ready and the file open; QEMU: everything. */
  readonly seconds: number;
  /** Opening and closing the file, where it is not within `seconds`. */
  readonly setUpSeconds: number;
  readonly cpuSeconds: number;
  /** Resident beyond the RAM and what was there before. */
  readonly extraBytes: number;
  /** Waiting for the device after a save. */
  readonly syncSeconds?: number | undefined;
  /** Whether the machine did something else as well. */
  readonly noisy: boolean;
}

/** Medians of one contender's runs. */
export interface SnapshotSummary {
  readonly seconds: Spread;
  /** The same with set-up and sync. */
  readonly wholeSeconds: Spread;
  readonly cpuSeconds: Spread;
  readonly extraBytes: number;
  readonly runs: number;
  readonly noisyRuns: number;
}

/** Sums up; disturbed runs are left out as long as at least half of all remain. */
export function summarizeSnapshots(all: readonly SnapshotRun[]): SnapshotSummary {
  const quiet = all.filter(({ noisy }) => !noisy);
  const runs = quiet.length < all.length / 2 ? all : quiet;
  const over = (figure: (run: SnapshotRun) => number): Spread => spread(runs.map(figure));
  return {
    seconds: over(({ seconds }) => seconds),
    wholeSeconds: over((run) => run.seconds + run.setUpSeconds + (run.syncSeconds ?? 0)),
    cpuSeconds: over(({ cpuSeconds }) => cpuSeconds),
    extraBytes: over(({ extraBytes }) => extraBytes).max,
    runs: runs.length,
    noisyRuns: all.length - quiet.length,
  };
}
