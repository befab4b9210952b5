/**
 * Starts and joins the threads of a session. The thread that does so may be blocked for the whole
 * session and never see an event, so a job reports its end in shared memory.
 *
 * @module
 */
import { JOIN_LIMIT_MS, WAIT_TICK_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { JobThread, type Thread } from "./job_thread.ts";
import type { ThreadJob } from "./thread_messages.ts";
import type { ThreadProgram } from "./thread_program.ts";

/** See the module comment. Belongs to the thread that made it. */
export class WorkerGroup {
  readonly #control: SessionControl;
  readonly #threads: Thread[] = [];

  constructor(control: SessionControl) {
    this.#control = control;
  }

  /**
   * Starts a thread; it does not keep the process alive, and ends with its job.
   *
   * @param program What it loads; must know the job's role.
   * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
   */
  start(job: ThreadJob, program: ThreadProgram = "entry"): Thread {
    const thread = new JobThread(program).run(job, this.#control);
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
      if (!thread.ended) {
        clean = false;
        this.#control.noteThreadsLeft();
      }
      // Of those that have ended only the thread is left, idle and without a descriptor.
      thread.terminate();
    }
    this.#threads.length = 0;
    return clean;
  }
}
