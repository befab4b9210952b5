/**
 * Work that would block the caller's event loop, done by a thread of its own that gives one answer.
 *
 * @module
 */
import type { NoReports, ServiceHandle, ServiceJob, Unstarted } from "./service.ts";
import { ServiceLink } from "./service_loop.ts";
import { ServiceThread } from "./service_thread.ts";

interface OneAnswer<Result> {
  answer(): Result;
}

/**
 * Does the work of such a thread and gives the answer.
 *
 * @param peer What the work is about, for messages.
 * @param large Arrays of the result that are handed over and not copied.
 */
export function giveAnswer<Result>(
  service: ServiceHandle,
  peer: string,
  work: () => Result,
  large?: (result: Result) => readonly Uint8Array[],
): Promise<void> {
  return new ServiceLink(service).serve<OneAnswer<Result>>(
    { answer: work },
    {
      context: { peer, phase: undefined },
      last: "answer",
      large: large && ((result) => large(result as Result)),
    },
  );
}

/**
 * Starts a thread for `job` and waits for its answer, and for its end.
 *
 * @param signal Lets go of the thread, which ends by itself.
 * @throws {MultifdError} what the work throws.
 */
export async function answerOf<Result>(
  job: Unstarted<ServiceJob>,
  signal?: AbortSignal,
): Promise<Result> {
  const thread = new ServiceThread<OneAnswer<Result>, NoReports>(
    job,
    { side: "destination", signal },
    {},
  );
  const cancelled = Promise.withResolvers<never>();
  const onAbort = (): void => cancelled.reject(thread.failure());
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  try {
    return await thread.during(Promise.race([thread.post("answer"), cancelled.promise]));
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted !== true) await thread.stop();
  }
}
