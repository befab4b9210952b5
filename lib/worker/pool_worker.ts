/**
 * A thread of a pool: runs one task after the other until its owner lets it go.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { rehearseLoad, rehearseSave } from "../device/device_rehearsal.ts";
import { runLoad } from "../device/load_thread.ts";
import { runSave } from "../device/save_thread.ts";
import { MultifdError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { PoolCommand, PoolJob, PoolTask } from "./messages.ts";
import { PoolState } from "./pool_state.ts";
import type { TaskContext } from "./thread_pool.ts";
import { callWorkerFunction } from "./worker_function.ts";

/** Serves tasks until the pool is disposed. */
export async function runPoolWorker(job: PoolJob): Promise<void> {
  const state = new PoolState(job.pool, new SessionControl(job.control));
  const port = parentPort!;
  const { promise, resolve } = Promise.withResolvers<void>();
  const serve = async (task: PoolTask): Promise<void> => {
    const error = await runTask(task, state);
    if (error !== undefined && job.abortOnError) state.abort();
    state.end(job.worker, error);
    port.postMessage({ kind: "ended" });
  };
  port.on("message", (command: PoolCommand) => {
    if (command.kind === "close") return resolve();
    void serve(command.task);
  });
  if (job.purpose !== undefined) await runTask({ kind: "rehearse", purpose: job.purpose }, state);
  await promise;
  port.close();
}

/** Runs one task; resolves to what it threw. */
async function runTask(task: PoolTask, state: PoolState): Promise<unknown> {
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
    await perform(task, context);
    return undefined;
  } catch (error) {
    return (
      error ?? new MultifdError("ERR_MULTIFD_INTERNAL", "Cannot go on: the task threw nothing")
    );
  } finally {
    clearInterval(timer);
  }
}

async function perform(task: PoolTask, context: TaskContext): Promise<void> {
  switch (task.kind) {
    case "rehearse":
      return task.purpose === "save" ? rehearseSave(context) : rehearseLoad(context);
    case "call":
      return callWorkerFunction(task.function, context);
    case "save":
      return runSave(task, context);
    case "load":
      return runLoad(task, context);
  }
}
