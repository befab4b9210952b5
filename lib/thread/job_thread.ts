/**
 * The maker's end of threads and their jobs: a thread ends with its job.
 *
 * @module
 */
import { startThread, type NativeThread } from "../../ffi/runtime/runtime.ts";
import { SystemError } from "../errors.ts";
import type { SessionControl } from "../sync/session_control.ts";
import {
  JobState,
  markEnded,
  type MakerMessage,
  type ThreadJob,
  type ThreadMessage,
} from "./thread_messages.ts";
import { programUrls, type ThreadProgram } from "./thread_program.ts";

/** A thread that carries out a job, as the one who started the job has it. */
export class Thread {
  readonly #thread: JobThread;
  readonly #number: number;
  readonly #state: Int32Array;
  readonly #messageListeners: ((message: unknown) => void)[] = [];
  readonly #exitListeners: (() => void)[] = [];
  #exited = false;
  #keepsAlive = false;

  constructor(thread: JobThread, number: number, state: Int32Array) {
    this.#thread = thread;
    this.#number = number;
    this.#state = state;
  }

  /** Whether the job has ended, as it says in shared memory. */
  get ended(): boolean {
    return Atomics.load(this.#state, 0) === JobState.ENDED;
  }

  /** Sleeps until the job ends, at most `limitMs`. */
  waitEnd(limitMs: number): void {
    const state = Atomics.load(this.#state, 0);
    if (state !== JobState.ENDED) Atomics.wait(this.#state, 0, state, limitMs);
  }

  /** Posts to the job. */
  postMessage(message: unknown): void {
    this.#thread.post({ kind: "message", number: this.#number, message });
  }

  /** Calls `listener` with each message of the job. */
  onMessage(listener: (message: unknown) => void): void {
    this.#messageListeners.push(listener);
  }

  /** Calls `listener` when the thread has ended; after all its messages. */
  onExit(listener: () => void): void {
    this.#exitListeners.push(listener);
  }

  /** Keeps the process alive as long as the job runs, or until {@linkcode unref}. */
  ref(): void {
    if (this.#exited || this.#keepsAlive) return;
    this.#keepsAlive = true;
    this.#thread.ref();
  }

  /** Takes {@linkcode ref} back. */
  unref(): void {
    if (!this.#keepsAlive) return;
    this.#keepsAlive = false;
    this.#thread.unref();
  }

  /** Ends the thread, the last resort: code behind a system call, cleanup included, never runs. */
  terminate(): void {
    this.#thread.terminate();
  }

  /** Of the thread: a message came. */
  receive(message: unknown): void {
    for (const listener of this.#messageListeners) listener(message);
  }

  /** Of the thread: the job has ended, or the thread has. */
  exit(): void {
    this.unref();
    this.#exited = true;
    if (!this.ended) markEnded(this.#state);
    for (const listener of this.#exitListeners) listener();
  }
}

/** A thread. Belongs to the thread that made it. */
export class JobThread {
  readonly program: ThreadProgram;
  readonly #native: NativeThread;
  readonly #jobs = new Map<number, { readonly thread: Thread; readonly control: SessionControl }>();
  #last = 0;
  #refs = 0;
  #terminated = false;

  /**
   * Starts the thread; it does not keep the process alive.
   *
   * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
   */
  constructor(program: ThreadProgram) {
    this.program = program;
    try {
      this.#native = startThread(programUrls()[program], {
        message: (message) => this.#take(message as ThreadMessage),
        failed: (error) => this.#fail(error),
        ended: () => this.#end(),
      });
    } catch (cause) {
      const message = "Cannot start a thread: there is no memory, or no number, for one more";
      throw new SystemError(message, { errno: "EAGAIN", cause });
    }
    this.#native.unref();
  }

  /** Has the thread carry out a job; it must have none. */
  run(job: ThreadJob, control: SessionControl): Thread {
    const number = ++this.#last;
    const state = new SharedArrayBuffer(4);
    const thread = new Thread(this, number, new Int32Array(state));
    this.#jobs.set(number, { thread, control });
    const programs = programUrls();
    this.post({ kind: "job", number, job, control: control.buffer, state, programs });
    return thread;
  }

  post(message: MakerMessage): void {
    this.#native.postMessage(message, []);
  }

  ref(): void {
    if (this.#refs++ === 0) this.#native.ref();
  }

  unref(): void {
    if (--this.#refs === 0) this.#native.unref();
  }

  terminate(): void {
    if (this.#terminated) return;
    this.#terminated = true;
    this.#native.terminate();
  }

  #take(message: ThreadMessage): void {
    if (message.kind === "message") {
      return this.#jobs.get(message.number)?.thread.receive(message.message);
    }
    // It exits when the thread is gone, and with it all that it had.
    this.terminate();
  }

  /** The program did not load, or something that a job had started threw when nobody waited for it. */
  #fail(error: Error): void {
    for (const { control } of this.#jobs.values()) control.fail(error);
  }

  #end(): void {
    this.#terminated = true;
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const { thread } of jobs) thread.exit();
  }
}
