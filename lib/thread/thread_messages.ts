/**
 * What a thread and whoever gives it jobs say to each other. A thread carries out one job after the
 * other; messages of a job bear its number, so that none is taken for one of the next job.
 *
 * @module
 */
import type { ProgramUrls, ThreadProgram } from "./thread_program.ts";

/** What a thread is to do. Each feature adds what its own jobs need; the programs know the roles. */
export interface ThreadJob {
  readonly role: string;
  readonly [part: string]: unknown;
}

/**
 * A thread that its maker lends to another thread for one job; that one gives the job through a port of
 * its own and need not wait for the maker's event loop.
 */
export interface ThreadLease {
  readonly program: ThreadProgram;
  /** Of the job. */
  readonly number: number;
  readonly port: MessagePort;
  /** One word, a `JobState`. */
  readonly state: SharedArrayBuffer;
}

/** A job. */
export interface JobMessage {
  readonly kind: "job";
  readonly number: number;
  readonly job: ThreadJob;
  /** Of the session, for an error that the job throws. */
  readonly control: SharedArrayBuffer;
  /** One word, a `JobState`. */
  readonly state: SharedArrayBuffer;
  /** For threads that the job starts. */
  readonly programs: ProgramUrls;
  /** Threads for jobs of the job. */
  readonly leases: readonly ThreadLease[];
}

/** A message to a job, or of one. */
interface JobLetter {
  readonly kind: "message";
  readonly number: number;
  readonly message: unknown;
}

/** From the maker, or from who has the thread on loan. */
export type MakerMessage =
  JobMessage | JobLetter | { readonly kind: "lend"; readonly port: MessagePort };

/** To who gave the job: a message of it, or its end. The maker hears of every end. */
export type ThreadMessage = JobLetter | { readonly kind: "ended"; readonly number: number };

/**
 * State of a job, in shared memory because who waits for it may be blocked: written by who gives the
 * job, then by the thread.
 */
export const JobState = {
  /** None was given so far. */
  NONE: 0,
  GIVEN: 1,
  RUNNING: 2,
  /** The thread can have another job. */
  ENDED: 3,
  /** The thread must not have another job. */
  SPENT: 4,
} as const;

/** Whether a job has ended. */
export function jobEnded(state: Int32Array): boolean {
  return Atomics.load(state, 0) >= JobState.ENDED;
}

/** Writes a job's end and wakes who joins it. */
export function markEnded(
  state: Int32Array,
  end: typeof JobState.ENDED | typeof JobState.SPENT,
): void {
  Atomics.store(state, 0, end);
  Atomics.notify(state, 0);
}
