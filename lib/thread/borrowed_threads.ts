/**
 * Threads that this thread has on loan while it carries out a job. They were started at the same time
 * as the job, or before it.
 *
 * @module
 */
import type { SessionControl } from "../sync/session_control.ts";
import { Thread, type ThreadLine } from "./thread.ts";
import {
  JobState,
  type MakerMessage,
  type ThreadJob,
  type ThreadLease,
  type ThreadMessage,
} from "./thread_messages.ts";
import { programUrls, type ThreadProgram } from "./thread_program.ts";

/** Undefined in a thread that is nobody's. */
let leases: ThreadLease[] | undefined;

/** Says what this thread has on loan from now on; whatever it had before goes back. */
export function borrowThreads(borrowed: readonly ThreadLease[]): void {
  returnThreads();
  leases = [...borrowed];
}

/** What was not used goes back; what was used does so by itself. */
export function returnThreads(): void {
  for (const { port } of leases ?? []) port.close();
  if (leases !== undefined) leases.length = 0;
}

/** Whether this thread was made by another one for its jobs, and has none of its own between them. */
export function isJobThread(): boolean {
  return leases !== undefined;
}

/** Gives the job to a thread that is on loan; undefined when there is none left of that program. */
export function runOnBorrowed(
  job: ThreadJob,
  program: ThreadProgram,
  control: SessionControl,
): Thread | undefined {
  const at = leases?.findIndex((lease) => lease.program === program) ?? -1;
  const [lease] = at < 0 ? [] : leases!.splice(at, 1);
  if (lease === undefined) return undefined;
  const { number, port, state } = lease;
  const words = new Int32Array(state);
  const thread = new Thread(new PortLine(port), number, words);
  port.onmessage = ({ data }) => {
    const message = data as ThreadMessage;
    if (message.kind === "message") return thread.receive(message.message);
    thread.exit();
    port.close();
  };
  Atomics.store(words, 0, JobState.GIVEN);
  const programs = programUrls();
  const { buffer } = control;
  const given = { number, job, control: buffer, state, programs, leases: [] };
  port.postMessage({ kind: "job", ...given } satisfies MakerMessage);
  return thread;
}

/** The maker keeps the thread, refers to it and ends it. */
class PortLine implements ThreadLine {
  readonly #port: MessagePort;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  postLetter(number: number, message: unknown): void {
    this.#port.postMessage({ kind: "message", number, message } satisfies MakerMessage);
  }

  ref(): void {}

  unref(): void {}

  giveBack(): void {
    this.#port.close();
  }

  terminate(): void {}
}
