/**
 * The worker behind an asynchronous session: keeps the process alive exactly while somebody waits
 * for the session, turns an abort signal into a stop, and ends in bounded time.
 *
 * @module
 */
import type { Worker } from "node:worker_threads";
import { CancelledError, MultifdError } from "../errors.ts";
import { JOIN_LIMIT_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { WorkerGroup, type ThreadJob } from "../thread/worker_group.ts";

/** See the module comment. */
export class SessionThread {
  readonly #worker: Worker;
  readonly #control: SessionControl;
  readonly #side: "source" | "destination";
  readonly #signal: AbortSignal | undefined;
  readonly #exited: Promise<void>;
  #waiting = 0;

  constructor(
    job: ThreadJob,
    control: SessionControl,
    side: "source" | "destination",
    signal: AbortSignal | undefined,
  ) {
    this.#control = control;
    this.#side = side;
    this.#signal = signal;
    this.#worker = new WorkerGroup(control).start(job);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exited = promise;
    this.#worker.once("exit", () => resolve());
    signal?.addEventListener("abort", this.#cancel, { once: true });
    if (signal?.aborted) this.#cancel();
  }

  /** Calls `listener` for each message of the worker. */
  onMessage(listener: (message: unknown) => void): void {
    this.#worker.on("message", listener);
  }

  /** Posts a message to the worker. */
  post(message: unknown): void {
    this.#worker.postMessage(message);
  }

  /** Waits for `result` or the end of the worker, keeping the process alive meanwhile. */
  async during<Result>(result: Promise<Result>): Promise<Result> {
    if (this.#waiting++ === 0) this.#worker.ref();
    try {
      const ended = this.#exited.then(() => {
        throw this.failure();
      });
      return await Promise.race([result, ended]);
    } finally {
      if (--this.#waiting === 0) this.#worker.unref();
    }
  }

  /** Waits for the end of the worker, keeping the process alive meanwhile. */
  async ended(): Promise<void> {
    if (this.#waiting++ === 0) this.#worker.ref();
    await this.#exited;
    if (--this.#waiting === 0) this.#worker.unref();
  }

  /** Why the session ended. */
  failure(): MultifdError {
    return (
      this.#control.error ??
      new MultifdError("ERR_MULTIFD_STOPPED", "Cannot go on: the session has ended", {
        side: this.#side,
      })
    );
  }

  /** Waits until the worker has ended, and closes what it may have left open. */
  async end(): Promise<void> {
    this.#signal?.removeEventListener("abort", this.#cancel);
    this.#worker.ref();
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    // Its own join may take the limit too, so this one allows for both.
    const timer = setTimeout(() => resolve("late"), 2 * JOIN_LIMIT_MS);
    const outcome = await Promise.race([this.#exited, late]);
    clearTimeout(timer);
    if (outcome === "late") void this.#worker.terminate();
    this.#worker.unref();
    this.#control.closeDescriptors();
  }

  readonly #cancel = (): void => {
    if (this.#control.completed) return; // it is being wound down, and both sides know the outcome
    const cause: unknown = this.#signal?.reason;
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#control.fail(
      new CancelledError("ERR_MULTIFD_CANCELLED", `Cannot go on: cancelled (${reason})`, { cause }),
      { side: this.#side },
    );
  };
}
