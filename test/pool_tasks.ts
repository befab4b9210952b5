/**
 * Functions that pools of the tests run on their threads.
 *
 * @module
 */
import type { TaskContext } from "../mod.ts";

/** Adds one to a word and ends. */
export function count(_: TaskContext, words: Int32Array): void {
  Atomics.add(words, 0, 1);
}

/** Announces itself in word 0 and blocks until word 1 says that `parties` have done so. */
export function meet(context: TaskContext, data: { words: Int32Array; parties: number }): void {
  const { words, parties } = data;
  if (Atomics.add(words, 0, 1) + 1 === parties) {
    Atomics.store(words, 1, 1);
    Atomics.notify(words, 1);
  }
  while (Atomics.load(words, 1) === 0) {
    context.throwIfAborted();
    Atomics.wait(words, 1, 0, 20);
  }
}

/** Announces itself and blocks, seeing no event, until it is aborted. */
export function blockUntilAborted(context: TaskContext, words: Int32Array): void {
  Atomics.add(words, 0, 1);
  while (!context.aborted) Atomics.wait(words, 1, 0, 20);
  Atomics.add(words, 2, 1);
}

/** Waits for the abort signal on its event loop. */
export async function waitForSignal({ signal }: TaskContext, words: Int32Array): Promise<void> {
  Atomics.add(words, 0, 1);
  const { promise, resolve } = Promise.withResolvers<void>();
  const keepAlive = setInterval(() => {}, 1000);
  signal.addEventListener("abort", () => resolve());
  await promise;
  clearInterval(keepAlive);
  Atomics.add(words, 2, 1);
}

/** Fails once `words[0]` others have begun. */
export function failAfter(_: TaskContext, data: { words: Int32Array; others: number }): void {
  while (Atomics.load(data.words, 0) < data.others) Atomics.wait(data.words, 3, 0, 5);
  throw new RangeError("Cannot do this: it is a test");
}

/** Fails with its number. */
export function fail(_: TaskContext, number: number): never {
  throw new Error(`task ${number}`);
}

/** Ends its thread under the pool. */
export function exitThread(): never {
  process.exit(3);
}

/** No function. */
export const notAFunction = 1;
