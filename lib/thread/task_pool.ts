/**
 * A pool of long-lived worker threads for tasks that may block: submit, wait for all, abort, collect
 * errors. Save and load threads of devices run on one.
 *
 * Workers are started when they are first needed and kept, because a new thread with cold code is
 * far slower than a posted message; {@linkcode TaskPool.prestart} moves that cost out of the
 * critical phase.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { MultifdError } from "../errors.ts";
import { JOIN_LIMIT_MS, POOL_THREADS_MAX } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { PoolCommand, PoolJob } from "./pool_messages.ts";
import { PoolState } from "./pool_state.ts";
import type { Thread } from "./thread.ts";
import { WorkerGroup } from "./worker_group.ts";

/** What a task's function gets as its first argument. */
export interface TaskContext {
  /** Fires on the task's event loop when the pool is aborted; a task that blocks never sees it. */
  readonly signal: AbortSignal;
  /** Whether the task is to end now; cheap, for tasks that block. */
  readonly aborted: boolean;
  /** @throws {MultifdError} `ERR_MULTIFD_ABORTED` when the task is to end now. */
  throwIfAborted(): void;
}

/** How a pool is made. */
export interface ThreadPoolOptions {
  /** Most threads, 1 to 1024; further tasks wait for one to become free. Default 1024. */
  readonly threadsMax?: number | undefined;
  /** Whether the first failing task aborts all others. Default true. */
  readonly abortOnError?: boolean | undefined;
}

const THREAD_POOL_OPTIONS = {
  threadsMax: true,
  abortOnError: true,
} satisfies OptionNames<ThreadPoolOptions>;

/** A task that failed. */
export interface FailedTask {
  /** What `submit()` returned. */
  readonly task: number;
  readonly error: MultifdError;
}

interface Member {
  readonly worker: Thread;
  /** Number of the task it is busy with, or -1. */
  task: number;
  gone: boolean;
}

/**
 * See the module comment. Belongs to the thread that made it, which waits either blocking
 * (`waitAll`) or on its event loop (`settled`).
 */
export class TaskPool implements Disposable, AsyncDisposable {
  readonly #threadsMax: number;
  readonly #abortOnError: boolean;
  readonly #control: SessionControl;
  readonly #role: string;
  readonly #state: PoolState;
  readonly #group: WorkerGroup;
  readonly #members: Member[] = [];
  readonly #queue: { readonly task: number; readonly work: unknown }[] = [];
  readonly #errors: FailedTask[] = [];
  #submitted = 0;
  #disposed = false;
  #changed = Promise.withResolvers<void>();

  /**
   * @param control Session the pool belongs to: its stop ends all tasks.
   * @param role What its threads can do.
   * @throws {RangeError} for a number of threads that cannot work.
   */
  constructor(options: ThreadPoolOptions, control: SessionControl, role: string) {
    checkOptionNames(THREAD_POOL_OPTIONS, options);
    const { threadsMax = POOL_THREADS_MAX, abortOnError = true } = options;
    if (!Number.isInteger(threadsMax) || threadsMax < 1 || threadsMax > POOL_THREADS_MAX) {
      throw new RangeError(
        `Cannot make a pool of ${threadsMax} threads: must be 1 to ${POOL_THREADS_MAX}`,
      );
    }
    this.#threadsMax = threadsMax;
    this.#abortOnError = abortOnError;
    this.#control = control;
    this.#role = role;
    this.#state = new PoolState(threadsMax, control);
    this.#group = new WorkerGroup(control);
  }

  /** Threads that exist. */
  get threads(): number {
    return this.#members.length;
  }

  /** Tasks that have not ended, as far as this thread has looked. */
  get pending(): number {
    return this.pendingTasks.length;
  }

  /** Their numbers, those that run first. */
  get pendingTasks(): readonly number[] {
    const running = this.#members.map(({ task }) => task).filter((task) => task >= 0);
    return [...running, ...this.#queue.map(({ task }) => task)];
  }

  /** Whether the pool was aborted, by `abort()`, by a failing task or by its session. */
  get aborted(): boolean {
    return this.#state.stopping;
  }

  /** Tasks that have failed so far, in the order of their discovery. */
  get errors(): readonly FailedTask[] {
    return this.#errors;
  }

  /** Starts threads until there are `count`, at most the pool's most. */
  prestart(count: number): void {
    while (this.#members.length < Math.min(count, this.#threadsMax)) this.#addMember();
  }

  /**
   * Gives a task to a thread of the pool: at once if one is free or may be started, else as soon as
   * this thread waits and one has become free.
   *
   * @param work What the threads of the pool's role take.
   * @returns Number of the task, for {@linkcode errors}.
   */
  submit(work: unknown): number {
    if (this.#disposed) throw new RangeError("Cannot submit a task: the pool is disposed");
    const task = this.#submitted++;
    this.#queue.push({ task, work });
    this.#dispatch();
    return task;
  }

  /** Asks all tasks to end; those that have not begun never do. */
  abort(): void {
    this.#state.abort();
  }

  /**
   * Blocks until all tasks have ended, at most `limitMs`, and after an abort at most the time that
   * joining a thread may take.
   *
   * @returns Whether all have ended; their errors are in {@linkcode errors}.
   */
  waitAll(limitMs = Infinity): boolean {
    let deadline = performance.now() + limitMs;
    for (;;) {
      const seen = this.#state.changes;
      this.#dispatch();
      if (this.pending === 0) return true;
      while (this.#state.changes === seen) {
        const now = performance.now();
        if (this.#state.stopping) deadline = Math.min(deadline, now + JOIN_LIMIT_MS);
        if (now >= deadline) return false;
        this.#state.waitChange(seen);
      }
    }
  }

  /** Resolves when all tasks have ended, well or badly; keeps the process alive meanwhile. */
  async settled(): Promise<void> {
    for (const { worker } of this.#members) worker.ref();
    try {
      for (;;) {
        this.#dispatch();
        if (this.pending === 0) return;
        for (const { worker } of this.#members) worker.ref();
        await this.#changed.promise;
      }
    } finally {
      for (const { worker } of this.#members) worker.unref();
    }
  }

  /** Aborts all tasks and joins the threads, blocking. Safe to call twice. */
  [Symbol.dispose](): void {
    if (!this.#close()) return;
    this.#group.join();
  }

  /** Aborts all tasks and joins the threads on the event loop. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#close()) return;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, JOIN_LIMIT_MS);
    const exits = this.#members.map(({ worker, gone }) => {
      if (gone) return Promise.resolve();
      worker.ref();
      return new Promise<void>((exited) => worker.onExit(exited));
    });
    await Promise.race([Promise.all(exits), late]);
    clearTimeout(timer);
    for (const { worker, gone } of this.#members) if (!gone) worker.terminate();
  }

  #close(): boolean {
    if (this.#disposed) return false;
    this.#disposed = true;
    this.abort();
    this.#queue.length = 0;
    for (const { worker } of this.#members) {
      worker.postMessage({ kind: "close" } satisfies PoolCommand);
    }
    return true;
  }

  #collect(): void {
    for (const [index, member] of this.#members.entries()) {
      const result = this.#state.collect(index);
      if (result === undefined) continue;
      if (result.error !== undefined) this.#failed(member.task, result.error);
      member.task = -1;
    }
  }

  /** Collects what has ended and gives waiting tasks to free threads. */
  #dispatch(): void {
    this.#collect();
    if (this.#state.stopping) this.#queue.length = 0;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const index = this.#freeMember();
      if (index < 0) return;
      this.#queue.shift();
      const member = this.#members[index];
      member.task = next.task;
      this.#state.begin(index);
      member.worker.postMessage({ kind: "task", task: next.work } satisfies PoolCommand);
    }
  }

  #freeMember(): number {
    const free = this.#members.findIndex(({ task, gone }) => task < 0 && !gone);
    if (free >= 0 || this.#members.length >= this.#threadsMax) return free;
    return this.#addMember();
  }

  #addMember(): number {
    const index = this.#members.length;
    const worker = this.#group.start({
      role: this.#role,
      worker: index,
      abortOnError: this.#abortOnError,
      pool: this.#state.buffer,
      control: this.#control.buffer,
    } satisfies PoolJob);
    const member: Member = { worker, task: -1, gone: false };
    this.#members.push(member);
    worker.onMessage(() => this.#wake());
    worker.onExit(() => {
      member.gone = true;
      this.#collect();
      // A task may end its thread under the pool, for example with process.exit().
      if (member.task >= 0) {
        this.#failed(
          member.task,
          new MultifdError("ERR_MULTIFD_THREAD", "Cannot finish the task: it ended its thread"),
        );
        member.task = -1;
      }
      this.#wake();
    });
    return index;
  }

  #failed(task: number, error: MultifdError): void {
    this.#errors.push({ task, error });
    if (this.#abortOnError) this.#state.abort();
  }

  #wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers();
    resolve();
  }
}
