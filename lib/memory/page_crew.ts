/**
 * The threads that work on the pages of a block table (see `page_task.ts`). They stop with their
 * crew and with nothing else: a task that has begun is always finished, so that memory is never left
 * half applied because a connection failed meanwhile.
 *
 * @module
 */
import { processorCount } from "../../ffi/runtime/runtime.ts";
import { disposedError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import type { BlockTable } from "./block_table.ts";
import { PageTask, type PageOperationCode } from "./page_task.ts";
import { holdBlocks, type RamBlock } from "./ram_block.ts";
import type { PageWorkerJob } from "./page_worker.ts";

/** Threads beyond this gain nothing: memory bandwidth is used up. */
const THREADS_MAX = 4;

/** Threads a crew has unless told otherwise. */
export function crewThreads(): number {
  return Math.min(THREADS_MAX, processorCount());
}

/** See the module comment. Used by one thread. */
export class PageCrew implements Disposable {
  readonly #control = new SessionControl();
  readonly #workers = new WorkerGroup(this.#control);
  readonly #task: PageTask;
  readonly #memory: Disposable;
  #finished: (() => void) | undefined;
  #abandon: ((error: Error) => void) | undefined;
  #disposed = false;

  /**
   * @param table The blocks; more may be added while no task runs.
   * @param threads Threads to start, 0 or more. A blocking caller works too, a promise's does not.
   * @param blocks Blocks of the table to hold until the threads have ended; whoever owns the crew
   * keeps the memory of all others alive.
   */
  constructor(table: BlockTable, threads: number, blocks: readonly RamBlock[] = []) {
    this.#task = new PageTask(table);
    for (let thread = 0; thread < threads; thread++) {
      const job = {
        role: "page-worker",
        control: this.#control.buffer,
        blocks: table.handle,
        task: this.#task.buffer,
      } satisfies PageWorkerJob;
      this.#workers.start(job, "channel_entry").onMessage(() => this.#finished?.());
    }
    this.#memory = holdBlocks(blocks);
  }

  /** Runs a task on all threads and on the calling one; returns the pages found or applied. */
  runBlocking(operation: PageOperationCode): number {
    if (this.#disposed) throw disposedError("the threads of a page crew");
    this.#task.open(operation);
    this.#task.help();
    return this.#task.close();
  }

  /**
   * Runs a task while the event loop stays free; resolves to the pages found or applied.
   *
   * @throws {MultifdError} when the crew is disposed before the task is done.
   */
  async run(operation: PageOperationCode): Promise<number> {
    if (this.#disposed) throw disposedError("the threads of a page crew");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#abandon = reject;
    this.#finished = () => {
      if (this.#task.done) resolve();
    };
    // Keeps the process alive, and helps out should a thread have failed to start.
    const timer = setInterval(() => {
      if (this.#control.error !== undefined) this.#task.help();
      this.#finished?.();
    }, WAIT_TICK_MS);
    try {
      this.#task.open(operation);
      await promise;
      return this.#task.close();
    } finally {
      clearInterval(timer);
      this.#finished = undefined;
      this.#abandon = undefined;
    }
  }

  /** Stops and joins the threads; a task under way may end as a part. Safe to call twice. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#control.finish();
    this.#task.wake();
    this.#workers.join();
    if (!this.#task.done) this.#abandon?.(disposedError("the threads of a page crew"));
    if (!this.#control.threadsLeft) this.#memory[Symbol.dispose]();
  }
}
