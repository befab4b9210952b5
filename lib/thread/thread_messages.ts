/**
 * What a thread and the thread that made it say to each other. A thread carries out one job after
 * the other; messages of a job bear its number, so that none is taken for one of the next job.
 *
 * @module
 */
import type { ProgramUrls } from "./thread_program.ts";

/** What a thread is to do. Each feature adds what its own jobs need; the programs know the roles. */
export interface ThreadJob {
  readonly role: string;
  readonly [part: string]: unknown;
}

/** From the maker: a job, or a message to it. */
export type MakerMessage =
  | {
      readonly kind: "job";
      readonly number: number;
      readonly job: ThreadJob;
      /** Of the session, for an error that the job throws. */
      readonly control: SharedArrayBuffer;
      /** One word, a `JobState`. */
      readonly state: SharedArrayBuffer;
      /** For threads that the job starts. */
      readonly programs: ProgramUrls;
    }
  | { readonly kind: "message"; readonly number: number; readonly message: unknown };

/** To the maker: a message of a job, or its end. */
export type ThreadMessage =
  | { readonly kind: "message"; readonly number: number; readonly message: unknown }
  | { readonly kind: "ended"; readonly number: number };

/** State of a job, in shared memory because the maker may be blocked; the thread writes it. */
export const JobState = { STARTING: 0, RUNNING: 1, ENDED: 2 } as const;

/** Writes a job's end and wakes who joins it. */
export function markEnded(state: Int32Array): void {
  Atomics.store(state, 0, JobState.ENDED);
  Atomics.notify(state, 0);
}
