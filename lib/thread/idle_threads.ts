/**
 * The threads of this thread that have no job: kept for the next one, since starting a thread and
 * compiling its code costs far more than most jobs. Each thread that may block has its own; one that
 * carries out somebody's job has none.
 *
 * @module
 */
import { SystemError } from "../errors.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { isJobThread } from "./borrowed_threads.ts";
import { JobThread, type LentThread } from "./job_thread.ts";
import type { ThreadProgram } from "./thread_program.ts";

/**
 * Threads without a job that are kept beside those that are reserved, some 2 MiB each: enough for a
 * migration of 16 channels with both of its sides in one process.
 */
export const IDLE_THREADS_MAX = 34;

/** How long such a thread waits for its next job. */
const IDLE_THREAD_MS = 30_000;

/** How many threads of a program. */
export interface ThreadCount {
  readonly program: ThreadProgram;
  readonly count: number;
}

/** Threads that a job is going to need for jobs of its own. */
export interface ThreadCrew extends ThreadCount {
  /** Of those jobs. */
  readonly role: string;
}

interface IdleThread {
  readonly thread: JobThread;
  readonly since: number;
}

/** Those that wait, the one that has waited longest first. */
const idle: IdleThread[] = [];
/** Those that are to wait however long it takes. */
const reserved = new Map<ThreadProgram, number>();
/** Those that were started before the last {@linkcode releaseIdle} and are not to be kept. */
const unwanted = new WeakSet<JobThread>();
const all = new Set<JobThread>();
let timer: ReturnType<typeof setTimeout> | undefined;

/** A thread for a job: an idle one, of those that have done the same if there is one, else a new one. */
export function takeThread(program: ThreadProgram, role: string): JobThread {
  const fits = ({ thread }: IdleThread): boolean =>
    thread.program === program && !thread.terminated;
  let at = idle.findLastIndex((entry) => fits(entry) && entry.thread.roles.has(role));
  if (at < 0) at = idle.findLastIndex(fits);
  if (at >= 0) return idle.splice(at, 1)[0].thread;
  const thread = new JobThread(program, keep);
  all.add(thread);
  void untilGone(thread);
  return thread;
}

/** Threads for jobs of a job, or fewer where the machine has none left. */
export function lendThreads(
  { program, count, role }: ThreadCrew,
  control: SessionControl,
): LentThread[] {
  const lent: LentThread[] = [];
  while (lent.length < count) {
    try {
      lent.push(takeThread(program, role).lend(role, control));
    } catch (error) {
      if (error instanceof SystemError) break; // the job finds out by itself
      throw error;
    }
  }
  return lent;
}

/** Has so many more threads wait than before, or fewer. */
export function reserve({ program, count }: ThreadCount): void {
  reserved.set(program, Math.max(0, (reserved.get(program) ?? 0) + count));
}

/** Threads that are to wait, of one program or of all. */
export function reservedThreads(program?: ThreadProgram): number {
  if (program !== undefined) return reserved.get(program) ?? 0;
  return [...reserved.values()].reduce((sum, count) => sum + count, 0);
}

/** Idle threads of a program. */
export function idleThreads(program: ThreadProgram): number {
  return idle.filter(({ thread }) => thread.program === program).length;
}

/**
 * Ends threads that wait and resolves when they are gone: at most that many of a program, and none that
 * is reserved. Default all, and none that works now is to wait afterwards.
 */
export async function releaseIdle(some?: ThreadCount): Promise<void> {
  if (some === undefined) {
    reserved.clear();
    for (const thread of all) unwanted.add(thread);
  }
  const ending = idle
    .filter(({ thread }) => some === undefined || thread.program === some.program)
    .slice(some === undefined ? 0 : reservedThreads(some.program))
    .slice(0, some?.count)
    .map(({ thread }) => {
      forget(thread);
      thread.ref();
      thread.terminate();
      return thread.gone.finally(() => thread.unref());
    });
  await Promise.all(ending);
}

async function untilGone(thread: JobThread): Promise<void> {
  await thread.gone;
  all.delete(thread);
  forget(thread);
}

/** Of a thread whose job has ended. */
function keep(thread: JobThread): void {
  if (isJobThread() || unwanted.has(thread)) return thread.terminate();
  idle.push({ thread, since: performance.now() });
  trim();
}

function forget(thread: JobThread): void {
  const at = idle.findIndex((entry) => entry.thread === thread);
  if (at >= 0) idle.splice(at, 1);
}

/** Ends what is idle for too long or one too many, and comes again when the next one may be. */
function trim(): void {
  const now = performance.now();
  const spare = new Map(reserved);
  const surplus: IdleThread[] = [];
  // Those that came last have the warmest caches, so they are what is reserved.
  for (const entry of idle.toReversed()) {
    const left = spare.get(entry.thread.program) ?? 0;
    if (left > 0) spare.set(entry.thread.program, left - 1);
    else surplus.unshift(entry);
  }
  const tooMany = surplus.length - IDLE_THREADS_MAX;
  const ending = surplus.filter(({ since }, at) => at < tooMany || now - since >= IDLE_THREAD_MS);
  for (const { thread } of ending) {
    forget(thread);
    thread.terminate();
  }
  clearTimeout(timer);
  const next = surplus.find((entry) => !ending.includes(entry));
  timer = next && setTimeout(trim, Math.max(1, next.since + IDLE_THREAD_MS - now)).unref();
}
