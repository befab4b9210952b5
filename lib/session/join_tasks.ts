/**
 * Waiting for threads that run a user's code: no fixed limit fits it, so what is limited is the time
 * without any progress.
 *
 * @module
 */
import { TimeoutError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { TaskPool } from "../thread/task_pool.ts";

/**
 * Blocks until all tasks of the pool have ended.
 *
 * @param idleMs Longest time without a change of `progress()`.
 * @param standstill What a task that has not ended waits for, by its number; for the message.
 * @param check Called every tick; what it throws ends the wait.
 * @throws The first error of any task, {TimeoutError} when nothing moves any more.
 */
export function joinTasks(
  pool: TaskPool,
  control: SessionControl,
  idleMs: number,
  progress: () => number,
  standstill: (task: number) => string,
  check: () => void = () => {},
): void {
  let before = -1;
  let changedMs = performance.now();
  while (!pool.waitAll(WAIT_TICK_MS)) {
    control.throwIfFailed();
    check();
    control.noteActivity(); // connections have nothing to say meanwhile; the clock is here
    const now = progress();
    if (now !== before) changedMs = performance.now();
    else if (performance.now() - changedMs >= idleMs) {
      pool.abort();
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_DEVICE",
        `Cannot finish device state: ${pool.pendingTasks.map(standstill).join(", ")} within ${idleMs} ms`,
      );
    }
    before = now;
  }
  control.throwIfFailed();
  const [failed] = pool.errors;
  if (failed !== undefined) throw failed.error;
}
