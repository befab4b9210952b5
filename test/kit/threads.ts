/**
 * Worker threads that run a named function of a fixture file, and waiting on shared words with a
 * limit, so that a test can force an interleaving and never hangs when it does not come about.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { LimitMs } from "./limits.ts";

/** A thread of `test/fixtures/<file>.ts`; disposing ends it whatever it does. */
export class TestThread implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #ended: Promise<unknown>;

  constructor(file: string, data: object) {
    this.#worker = new Worker(new URL(`../fixtures/${file}.ts`, import.meta.url), {
      workerData: data,
    });
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#ended = promise;
    this.#ended.catch(() => {});
    this.#worker.once("message", resolve);
    this.#worker.once("error", reject);
  }

  /** What the thread posts at its end. */
  async result(limitMs: number = LimitMs.thread): Promise<unknown> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error(`No result within ${limitMs} ms`)), limitMs);
    try {
      return await Promise.race([this.#ended, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}

/** Waits until `condition` holds. */
export async function until(
  what: string,
  condition: () => boolean,
  limitMs: number = LimitMs.condition,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`Not within ${limitMs} ms: ${what}`);
    await Bun.sleep(1);
  }
}
