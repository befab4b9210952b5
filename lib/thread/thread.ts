/**
 * A thread that carries out a job, as the one who gave it the job has it.
 *
 * @module
 */
import { JobState, jobEnded, markEnded } from "./thread_messages.ts";

/** What a job's thread is reached by. */
export interface ThreadLine {
  /** Posts to the job with that number. */
  postLetter(number: number, message: unknown): void;
  ref(): void;
  unref(): void;
  /** The job with that number has ended: the thread may have another one. */
  giveBack(number: number): void;
  terminate(): void;
}

/** See the module comment. */
export class Thread {
  readonly #line: ThreadLine;
  readonly #number: number;
  readonly #state: Int32Array;
  readonly #messageListeners: ((message: unknown) => void)[] = [];
  readonly #exitListeners: (() => void)[] = [];
  #exited = false;
  #keepsAlive = false;

  constructor(line: ThreadLine, number: number, state: Int32Array) {
    this.#line = line;
    this.#number = number;
    this.#state = state;
  }

  /** Whether the job has ended, as it says in shared memory. */
  get ended(): boolean {
    return jobEnded(this.#state);
  }

  /** Sleeps until the job ends, at most `limitMs`. */
  waitEnd(limitMs: number): void {
    const state = Atomics.load(this.#state, 0);
    if (state < JobState.ENDED) Atomics.wait(this.#state, 0, state, limitMs);
  }

  /** Posts to the job. */
  postMessage(message: unknown): void {
    this.#line.postLetter(this.#number, message);
  }

  /** Calls `listener` with each message of the job. */
  onMessage(listener: (message: unknown) => void): void {
    this.#messageListeners.push(listener);
  }

  /** Calls `listener` when the job has ended; after all its messages. */
  onExit(listener: () => void): void {
    this.#exitListeners.push(listener);
  }

  /** Keeps the process alive as long as the job runs, or until {@linkcode unref}. */
  ref(): void {
    if (this.#exited || this.#keepsAlive) return;
    this.#keepsAlive = true;
    this.#line.ref();
  }

  /** Takes {@linkcode ref} back. */
  unref(): void {
    if (!this.#keepsAlive) return;
    this.#keepsAlive = false;
    this.#line.unref();
  }

  /** Of who has seen the job's end in shared memory: lets go of the thread. */
  giveBack(): void {
    this.#line.giveBack(this.#number);
  }

  /** Ends the thread, the last resort: code behind a system call, cleanup included, never runs. */
  terminate(): void {
    this.#line.terminate();
  }

  /** Of the thread: a message came. */
  receive(message: unknown): void {
    for (const listener of this.#messageListeners) listener(message);
  }

  /** Of the thread: the job has ended, or the thread has. */
  exit(): void {
    if (this.#exited) return;
    this.unref();
    this.#exited = true;
    if (!this.ended) markEnded(this.#state, JobState.SPENT);
    for (const listener of this.#exitListeners) listener();
  }
}
