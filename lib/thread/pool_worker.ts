/**
 * A thread of a pool: runs one task after the other until its owner lets it go.
 *
 * @module
 */
import { MultifdError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { PoolCommand, PoolJob } from "./pool_messages.ts";
import { PoolState } from "./pool_state.ts";
import type { TaskContext } from "./task_pool.ts";
import { callWorkerFunction, type WorkerFunction } from "./worker_function.ts";
import { threadPort } from "./thread_port.ts";

/** Calls functions until the pool is disposed. */
export function runPoolWorker(job: PoolJob): Promise<void> {
  return servePool(job, (task, context) => callWorkerFunction(task as WorkerFunction, context));
}

/**
 * Serves tasks until the pool is disposed.
 *
 * @param perform Does one task; what it throws is the task's error.
 * @param rehearse Runs before the first task; what it throws is lost.
 */
export async function servePool(
  job: PoolJob,
  perform: (task: unknown, context: TaskContext) => Promise<void> | void,
  rehearse?: (context: TaskContext) => void,
): Promise<void> {
  const state = new PoolState(job.pool, new SessionControl(job.control));
  const port = threadPort();
  const { promise, resolve } = Promise.withResolvers<void>();
  const serve = async (task: unknown): Promise<void> => {
    const error = await runTask(state, (context) => perform(task, context));
    if (error !== undefined && job.abortOnError) state.abort();
    state.end(job.worker, error);
    port.postMessage({ kind: "ended" });
  };
  port.onMessage((message) => {
    const command = message as PoolCommand;
    if (command.kind === "close") return resolve();
    void serve(command.task);
  });
  if (rehearse !== undefined) await runTask(state, rehearse);
  await promise;
}

/** Runs one task; resolves to what it threw. */
async function runTask(
  state: PoolState,
  perform: (context: TaskContext) => Promise<void> | void,
): Promise<unknown> {
  const abort = new AbortController();
  const reason = () => new MultifdError("ERR_MULTIFD_ABORTED", "Cannot go on: aborted");
  // For tasks that wait on their event loop; those that block look at `aborted`.
  const timer = setInterval(() => {
    if (state.stopping) abort.abort(reason());
  }, WAIT_TICK_MS);
  const context: TaskContext = {
    signal: abort.signal,
    get aborted() {
      return state.stopping;
    },
    throwIfAborted() {
      if (state.stopping) throw reason();
    },
  };
  try {
    context.throwIfAborted();
    await perform(context);
    return undefined;
  } catch (error) {
    return (
      error ?? new MultifdError("ERR_MULTIFD_INTERNAL", "Cannot go on: the task threw nothing")
    );
  } finally {
    clearInterval(timer);
  }
}
