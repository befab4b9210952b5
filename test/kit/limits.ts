/**
 * How long tests wait, in milliseconds, all in one place: long enough for a machine with other work,
 * short enough that what hangs ends as a failure with a name. `test/run.ts` gives a single test a
 * minute unless it asks for more, so that each of these ends first.
 */
export const LimitMs = {
  /** A condition within this process. */
  condition: 10_000,
  /** A thread's result, or writers that are to stand still. */
  thread: 20_000,
  /** Threads, sockets and descriptors to be gone after something has ended. */
  release: 15_000,
  /** Another process to connect, or a migration between processes. */
  migration: 30_000,
  /** The same with QEMUs of several releases, which wait for one another. */
  busyMigration: 120_000,
  /** A program that only computes. */
  program: 30_000,
  /** A program of examples/, whose other side may be slow to start. */
  example: 45_000,
  /** A fixture that tests a lot, or a command that installs something. */
  fixture: 60_000,
} as const;

/** A session's own limits, so that a test of it fails instead of hanging. */
export const testTimeouts = { connectMs: 10_000, idleMs: 20_000, stallMs: 10_000 } as const;
