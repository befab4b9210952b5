/**
 * A pool of long-lived worker threads that call functions of the caller's modules.
 *
 * @module
 */
import { SessionControl } from "../sync/session_control.ts";
import { POOL_ROLE } from "./pool_messages.ts";
import { TaskPool, type FailedTask, type ThreadPoolOptions } from "./task_pool.ts";
import { checkWorkerFunction, type WorkerFunction } from "./worker_function.ts";

/**
 * A pool of threads for tasks that may block. Workers are started when they are first needed and kept.
 * Belongs to the thread that made it, which waits either blocking (`waitAll`) or on its event loop
 * (`settled`).
 */
export class ThreadPool implements Disposable, AsyncDisposable {
  readonly #tasks: TaskPool;

  /** @throws {RangeError} for a number of threads that cannot work. */
  constructor(options: ThreadPoolOptions = {}) {
    this.#tasks = new TaskPool(options, new SessionControl(), POOL_ROLE);
  }

  /** Threads that exist. */
  get threads(): number {
    return this.#tasks.threads;
  }

  /** Tasks that have not ended, as far as this thread has looked. */
  get pending(): number {
    return this.#tasks.pending;
  }

  /** Their numbers, those that run first. */
  get pendingTasks(): readonly number[] {
    return this.#tasks.pendingTasks;
  }

  /** Whether the pool was aborted, by `abort()` or by a failing task. */
  get aborted(): boolean {
    return this.#tasks.aborted;
  }

  /** Tasks that have failed so far, in the order of their discovery. */
  get errors(): readonly FailedTask[] {
    return this.#tasks.errors;
  }

  /** Starts threads until there are `count`, at most the pool's most. */
  prestart(count: number): void {
    this.#tasks.prestart(count);
  }

  /**
   * Runs a function on a thread of the pool: at once if one is free or may be started, else as soon
   * as this thread waits and one has become free.
   *
   * @returns Number of the task, for {@linkcode errors}.
   * @throws {TypeError} when the module is no absolute URL.
   */
  submit(work: WorkerFunction): number {
    checkWorkerFunction("task", work);
    return this.#tasks.submit(work);
  }

  /** Asks all tasks to end; those that have not begun never do. */
  abort(): void {
    this.#tasks.abort();
  }

  /**
   * Blocks until all tasks have ended, at most `limitMs`, and after an abort at most the time that
   * joining a thread may take.
   *
   * @returns Whether all have ended; their errors are in {@linkcode errors}.
   */
  waitAll(limitMs = Infinity): boolean {
    return this.#tasks.waitAll(limitMs);
  }

  /** Resolves when all tasks have ended, well or badly; keeps the process alive meanwhile. */
  settled(): Promise<void> {
    return this.#tasks.settled();
  }

  /** Aborts all tasks and joins the threads, blocking. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#tasks[Symbol.dispose]();
  }

  /** Aborts all tasks and joins the threads on the event loop. Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#tasks[Symbol.asyncDispose]();
  }
}
