/**
 * What threads do with the mutex of the tests.
 *
 * @module
 */
import { FAIR_MUTEX_WORDS, FairMutex } from "../lib/sync/fair_mutex.ts";

/** Word that stops the session. */
export const STOP_AT = 0;
/** First word of the mutex. */
export const MUTEX_AT = 8;
/** A list: its length, then its entries. */
export const LIST_AT = 64;
/** A word for each thread. */
export const ROUNDS_AT = 128;
/** Words of a test. */
export const WORDS = 256;
if (MUTEX_AT + FAIR_MUTEX_WORDS > LIST_AT) throw new RangeError("Words must not overlap");

function mutexOf(words: Int32Array): FairMutex {
  return new FairMutex(words, MUTEX_AT, {
    get stopping() {
      return Atomics.load(words, STOP_AT) !== 0;
    },
  });
}

/** Appends its number to the list, without atomics: the mutex alone protects it. */
export function appendUnderLock(_: unknown, data: { words: Int32Array; thread: number }): void {
  const { words, thread } = data;
  const mutex = mutexOf(words);
  if (!mutex.lock()) throw new Error("the mutex was not to be had");
  const length = words[LIST_AT] ?? 0;
  words[LIST_AT + 1 + length] = thread;
  words[LIST_AT] = length + 1;
  mutex.unlock();
}

/** Counts up to a common total, without atomics, and its own share beside it. */
export function countUnderLock(
  _: unknown,
  data: { words: Int32Array; thread: number; total: number },
): void {
  const { words, thread, total } = data;
  const mutex = mutexOf(words);
  for (;;) {
    if (!mutex.lock()) throw new Error("the mutex was not to be had");
    const count = words[LIST_AT] ?? 0;
    if (count < total) {
      words[LIST_AT] = count + 1;
      words[ROUNDS_AT + thread] = (words[ROUNDS_AT + thread] ?? 0) + 1;
    }
    mutex.unlock();
    if (count >= total) return;
  }
}

/** Waits for a mutex that nobody lets go of. */
export function expectStopped(_: unknown, words: Int32Array): void {
  if (mutexOf(words).lock()) throw new Error("the mutex was to be had");
}
