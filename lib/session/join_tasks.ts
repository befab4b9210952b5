/**
 * Waiting for threads that run a user's code: no fixed limit fits it, so what is limited is the time
 * without any progress.
 *
 * @module
 */
import { TimeoutError } from "../errors.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { ThreadPool } from "../worker/thread_pool.ts";

/**
 * Blocks until all tasks of the pool have ended.
 *
 * @param idleMs Longest time without a change of `progress()`.
 * @throws The first error of any task, {TimeoutError} when nothing moves any more.
 */
export function joinTasks(
  pool: ThreadPool,
  control: SessionControl,
  idleMs: number,
  progress: () => number,
): void {
  for (let before = -1; !pool.waitAll(idleMs);) {
    control.throwIfFailed();
    const now = progress();
    if (now === before) {
      pool.abort();
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_DEVICE",
        `Cannot finish device state: ${pool.pending} threads made no progress for ${idleMs} ms`,
      );
    }
    before = now;
  }
  control.throwIfFailed();
  const [failed] = pool.errors;
  if (failed !== undefined) throw failed.error;
}
