/**
 * Starts and joins the worker threads of a session. The thread that does so may be blocked for the
 * whole session and never see an event, so a worker reports its end in shared memory.
 *
 * `terminate()` is the last resort only: it does not stop a thread inside a system call, and code
 * after that call, cleanup included, never runs.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, workerData, type Worker } from "node:worker_threads";
import { SystemError } from "../errors.ts";
import { startThread } from "../../ffi/runtime/runtime.ts";
import { JOIN_LIMIT_MS, WAIT_TICK_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";

/** State of one worker; the worker writes it, but for STARTING. */
export const WorkerState = { STARTING: 0, RUNNING: 1, ENDED: 2 } as const;

/** What a thread is for. Each feature adds what its own threads need; `lib/entry.ts` knows the roles. */
interface ThreadJob {
  readonly role: string;
  readonly [part: string]: unknown;
}

/** What a worker is started with. */
interface WorkerStart {
  readonly job: ThreadJob;
  /** One word, a {@linkcode WorkerState}. */
  readonly state: SharedArrayBuffer;
  /** Program text for workers of this worker; absent when they load from source. */
  readonly program: string | undefined;
}

interface Member {
  readonly worker: Worker;
  readonly state: Int32Array;
}

/** See the module comment. Belongs to the thread that made it. */
export class WorkerGroup {
  readonly #control: SessionControl;
  readonly #members: Member[] = [];

  constructor(control: SessionControl) {
    this.#control = control;
  }

  /**
   * Starts a worker; it does not keep the process alive.
   *
   * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
   */
  start(job: ThreadJob): Worker {
    const state = new SharedArrayBuffer(4);
    const source = programSource();
    const start: WorkerStart = { job, state, program: source.program };
    const worker = spawned(source, start);
    worker.unref();
    const words = new Int32Array(state);
    // Only reached when the program itself does not load: everything later is caught inside.
    worker.on("error", (error) => {
      this.#control.fail(error);
      markEnded(words);
    });
    this.#members.push({ worker, state: words });
    return worker;
  }

  /**
   * Blocks until all workers have ended, at most `limitMs`; whoever has not is terminated. The
   * session must be stopping.
   *
   * @returns Whether all ended by themselves.
   */
  join(limitMs = JOIN_LIMIT_MS): boolean {
    const deadline = performance.now() + limitMs;
    let clean = true;
    for (const { worker, state } of this.#members) {
      while (Atomics.load(state, 0) !== WorkerState.ENDED && performance.now() < deadline) {
        Atomics.wait(state, 0, Atomics.load(state, 0), WAIT_TICK_MS);
      }
      if (Atomics.load(state, 0) === WorkerState.ENDED) continue;
      clean = false;
      this.#control.noteThreadsLeft();
      void worker.terminate();
    }
    this.#members.length = 0;
    return clean;
  }
}

/** Writes a worker's end and wakes who joins it. */
export function markEnded(state: Int32Array): void {
  Atomics.store(state, 0, WorkerState.ENDED);
  Atomics.notify(state, 0);
}

interface ProgramSource {
  readonly entry: string | URL;
  readonly program: string | undefined;
}

/**
 * Where workers find their program. From source and as an installed package it is the file above
 * this folder. In a bundle or a compiled binary that file does not exist, and the program travels as
 * text inside; its own workers get the text handed on, since it cannot contain itself.
 */
function programSource(): ProgramSource {
  if (!isMainThread) {
    const handedOn = (workerData as Partial<WorkerStart> | null)?.program;
    if (handedOn !== undefined) return { entry: handedOn, program: handedOn };
  }
  const entry = new URL("../entry.ts", import.meta.url);
  if (existsSync(fileURLToPath(entry)) && import.meta.url.endsWith("/worker_group.ts")) {
    return { entry, program: undefined };
  }
  // A call and not an import: from source the file need not exist.
  const text = require("../entry.bundle.txt") as string | { readonly default: string };
  const program = typeof text === "string" ? text : text.default;
  return { entry: program, program };
}

function spawned({ entry }: ProgramSource, start: WorkerStart): Worker {
  try {
    return startThread(entry, start);
  } catch (cause) {
    const message = "Cannot start a thread: there is no memory, or no number, for one more";
    throw new SystemError(message, { errno: "EAGAIN", cause });
  }
}
