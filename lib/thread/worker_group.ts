/**
 * Starts and joins the threads of a session. The thread that does so may be blocked for the whole
 * session and never see an event, so a job reports its end in shared memory.
 *
 * @module
 */
import { JOIN_LIMIT_MS, WAIT_TICK_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { runOnBorrowed } from "./borrowed_threads.ts";
import { takeThread } from "./idle_threads.ts";
import type { Thread } from "./thread.ts";
import type { ThreadJob, ThreadLease } from "./thread_messages.ts";
import type { ThreadProgram } from "./thread_program.ts";

/** See the module comment. Belongs to the thread that made it. */
export class WorkerGroup {
  readonly #control: SessionControl;
  readonly #threads: Thread[] = [];

  constructor(control: SessionControl) {
    this.#control = control;
  }

  /**
   * Has a thread carry out a job: one on loan, an idle one, or a new one. It does not keep the process
   * alive.
   *
   * @param program What it loads; must know the job's role.
   * @param lend Lends threads to the job; called when its own thread starts.
   * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
   */
  start(
    job: ThreadJob,
    program: ThreadProgram = "entry",
    lend: () => readonly ThreadLease[] = () => [],
  ): Thread {
    const thread =
      runOnBorrowed(job, program, this.#control) ??
      takeThread(program, job.role).run(job, this.#control, lend);
    this.#threads.push(thread);
    return thread;
  }

  /**
   * Blocks until all jobs have ended, at most `limitMs`; threads whose job has not are terminated.
   * The session must be stopping.
   *
   * @returns Whether all ended by themselves.
   */
  join(limitMs = JOIN_LIMIT_MS): boolean {
    const deadline = performance.now() + limitMs;
    let clean = true;
    for (const thread of this.#threads) {
      while (!thread.ended && performance.now() < deadline) thread.waitEnd(WAIT_TICK_MS);
      if (thread.ended) thread.giveBack();
      else {
        clean = false;
        this.#control.noteThreadsLeft();
        thread.terminate();
      }
    }
    this.#threads.length = 0;
    return clean;
  }
}
