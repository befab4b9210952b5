/**
 * What every program of a thread does: it carries out jobs, one after the other, and writes the end
 * and the error of each into shared memory, because the thread that waits for it may be blocked.
 *
 * @module
 */
import { collectGarbage, serveMessages } from "../../ffi/runtime/runtime.ts";
import { SessionControl } from "../sync/session_control.ts";
import { JobState, markEnded, type MakerMessage, type ThreadMessage } from "./thread_messages.ts";
import { setThreadPort, ThreadPort } from "./thread_port.ts";
import { adoptPrograms } from "./thread_program.ts";

/** Of a program that was given a job it does not know. */
export function unknownRole(job: never): never {
  const { role } = job as { readonly role: string };
  throw new TypeError(`Cannot carry out ${role}: this program has no such role`);
}

/**
 * Takes jobs from now on.
 *
 * @param run Carries out one; what it throws ends the job's session.
 */
export function serveJobs(run: (job: never) => Promise<void> | void): void {
  let port: ThreadPort | undefined;

  const serve = async (start: MakerMessage & { readonly kind: "job" }): Promise<void> => {
    const { number, job, control, state, programs } = start;
    const words = new Int32Array(state);
    Atomics.store(words, 0, JobState.RUNNING);
    adoptPrograms(programs);
    port = new ThreadPort(number, post);
    setThreadPort(port);
    try {
      await run(job as never);
    } catch (error) {
      new SessionControl(control).fail(error);
    }
    port.close();
    setThreadPort(undefined);
    markEnded(words);
    post({ kind: "ended", number } satisfies ThreadMessage, []);
    // Shared memory of the job would else stay for as long as the thread is idle.
    setTimeout(collectGarbage);
  };

  const post = serveMessages((message) => {
    const received = message as MakerMessage;
    if (received.kind === "job") void serve(received);
    else port?.deliver(received);
  });
}
