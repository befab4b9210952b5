/**
 * What every program of a thread does: it carries out jobs, one after the other, and writes the end
 * and the error of each into shared memory, because the thread that waits for it may be blocked.
 * A job leaves nothing behind; a thread whose job may have, has no other.
 *
 * @module
 */
import { collectGarbage, serveMessages } from "../../ffi/runtime/runtime.ts";
import { SessionControl } from "../sync/session_control.ts";
import { borrowThreads, returnThreads } from "./borrowed_threads.ts";
import {
  JobState,
  markEnded,
  type JobMessage,
  type MakerMessage,
  type ThreadMessage,
} from "./thread_messages.ts";
import { isThreadSpent, setThreadPort, spendThread, ThreadPort } from "./thread_port.ts";
import { adoptPrograms } from "./thread_program.ts";

/** How long a thread is idle before it frees what is left of its last job; that costs 3 ms. */
const IDLE_COLLECT_MS = 20;

type Post = (message: ThreadMessage, transfer: readonly ArrayBuffer[]) => void;

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
  const ports = new Map<number, ThreadPort>();
  let last: Promise<void> = Promise.resolve();
  let collecting: ReturnType<typeof setTimeout> | undefined;

  const serve = async (start: JobMessage, port: ThreadPort, post: Post): Promise<void> => {
    const { number, job, control, state, programs, leases } = start;
    const words = new Int32Array(state);
    Atomics.store(words, 0, JobState.RUNNING);
    clearTimeout(collecting);
    adoptPrograms(programs);
    borrowThreads(leases);
    setThreadPort(port);
    try {
      await run(job as never);
    } catch (error) {
      new SessionControl(control).fail(error);
      spendThread();
    }
    port.close();
    ports.delete(number);
    setThreadPort(undefined);
    returnThreads();
    markEnded(words, isThreadSpent() ? JobState.SPENT : JobState.ENDED);
    const end: ThreadMessage = { kind: "ended", number };
    post(end, []);
    if (post !== postToMaker) postToMaker(end, []);
    // Shared memory of the job would else stay for as long as the thread is idle.
    collecting = setTimeout(collectGarbage, IDLE_COLLECT_MS);
  };

  const take = (message: MakerMessage, post: Post): void => {
    switch (message.kind) {
      case "job": {
        const port = new ThreadPort(message.number, post);
        ports.set(message.number, port);
        last = last.then(() => serve(message, port, post));
        return;
      }
      case "message":
        return ports.get(message.number)?.deliver(message.message);
      case "lend": {
        const { port } = message;
        const answer: Post = (reply, transfer) => port.postMessage(reply, [...transfer]);
        port.onmessage = ({ data }) => take(data as MakerMessage, answer);
      }
    }
  };

  const postToMaker: Post = serveMessages((message) => take(message as MakerMessage, postToMaker));
}
