/**
 * Work that would block the caller's event loop, done by a thread of its own that gives one answer.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { fromErrorRecord, MultifdError, toErrorRecord, type ErrorRecord } from "../errors.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { ThreadJob } from "../thread/worker_group.ts";
import { SessionThread } from "./session_thread.ts";

/** What such a thread posts. */
interface ThreadAnswer<Result> {
  readonly result?: Result | undefined;
  readonly error?: ErrorRecord | undefined;
}

/**
 * Does the work of such a thread and posts the answer.
 *
 * @param peer What the work is about, for messages.
 * @param large Arrays of the result that are handed over and not copied, for which the other thread
 * would stand still.
 */
export function postAnswer<Result>(
  peer: string,
  work: () => Result,
  large: (result: Result) => Uint8Array[] = () => [],
): void {
  let answer: ThreadAnswer<Result>;
  let arrays: Uint8Array[] = [];
  try {
    const result = work();
    arrays = large(result);
    answer = { result };
  } catch (error) {
    answer = { error: toErrorRecord(error, { peer }) };
  }
  parentPort!.postMessage(
    answer,
    arrays.map(({ buffer }) => buffer as ArrayBuffer),
  );
}

/**
 * Starts a thread for `job` and waits for its answer, and for its end.
 *
 * @param action What the caller does, for messages.
 * @param signal Lets go of the thread, which ends by itself.
 * @throws {MultifdError} the error that the thread answers with.
 */
export async function answerOf<Result>(
  job: ThreadJob,
  action: string,
  signal?: AbortSignal,
): Promise<Result> {
  const thread = new SessionThread(job, new SessionControl(), "destination", signal);
  const answer = Promise.withResolvers<ThreadAnswer<Result>>();
  const onAbort = (): void => answer.reject(thread.failure());
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  thread.onMessage((message) => answer.resolve(message as ThreadAnswer<Result>));
  try {
    const { result, error } = await thread.during(answer.promise);
    if (result !== undefined) return result;
    throw error === undefined
      ? new MultifdError("ERR_MULTIFD_STOPPED", `${action}: no result`)
      : fromErrorRecord(error);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted !== true) await thread.end();
  }
}
