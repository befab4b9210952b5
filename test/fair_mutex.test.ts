import { expect, test } from "bun:test";
import { FAIR_MUTEX_WORDS, FairMutex } from "../lib/sync/fair_mutex.ts";
import { ThreadPool, type WorkerFunction } from "../mod.ts";
import { LIST_AT, MUTEX_AT, ROUNDS_AT, STOP_AT, WORDS } from "./fair_mutex_tasks.ts";

const module = new URL("./fair_mutex_tasks.ts", import.meta.url).href;
const task = (name: string, data?: unknown): WorkerFunction => ({ module, name, data });
const newWords = (): Int32Array => new Int32Array(new SharedArrayBuffer(WORDS * 4));
const stoppable = (words: Int32Array) => ({
  get stopping() {
    return Atomics.load(words, STOP_AT) !== 0;
  },
});

/** Threads that have asked for the mutex so far; its first word counts tickets. */
async function asked(words: Int32Array, tickets: number): Promise<void> {
  while (Atomics.load(words, MUTEX_AT) < tickets) await Bun.sleep(1);
}

test("FairMutex serves threads in the order in which they asked, sleeping or not", async () => {
  await using pool = new ThreadPool();
  const words = newWords();
  const mutex = new FairMutex(words, MUTEX_AT, stoppable(words));
  const threads = 20; // more than words to sleep on, so that some share one
  expect(mutex.lock()).toBe(true);
  for (let thread = 0; thread < threads; thread++) {
    pool.submit(task("appendUnderLock", { words, thread }));
    // Only now does the next one start: this one has its ticket, and the mutex is held.
    await asked(words, thread + 2);
  }
  expect(words[LIST_AT]).toBe(0);
  mutex.unlock();
  await pool.settled();
  expect(pool.errors).toEqual([]);
  expect([...words.subarray(LIST_AT + 1, LIST_AT + 1 + threads)]).toEqual(
    Array.from({ length: threads }, (_, thread) => thread),
  );
});

test("FairMutex lets one thread in at a time, and starves none", async () => {
  await using pool = new ThreadPool();
  const words = newWords();
  const threads = 4;
  for (let thread = 0; thread < threads; thread++) {
    pool.submit(task("countUnderLock", { words, thread, total: 4000 }));
  }
  await pool.settled();
  expect(pool.errors).toEqual([]);
  expect(words[LIST_AT]).toBe(4000);
  const rounds = [...words.subarray(ROUNDS_AT, ROUNDS_AT + threads)];
  expect(rounds.reduce((sum, count) => sum + count)).toBe(4000);
});

test("FairMutex.lock() ends with the session, for all who wait", async () => {
  await using pool = new ThreadPool();
  const words = newWords();
  const mutex = new FairMutex(words, MUTEX_AT, stoppable(words));
  mutex.lock();
  for (let thread = 0; thread < 3; thread++) pool.submit(task("expectStopped", words));
  await asked(words, 4);
  Atomics.store(words, STOP_AT, 1);
  await pool.settled();
  expect(pool.errors).toEqual([]);
});

test("FairMutex goes on when its tickets wrap around", () => {
  const words = new Int32Array(new SharedArrayBuffer(FAIR_MUTEX_WORDS * 4));
  words[0] = 0x7fff_fffe;
  words[1] = 0x7fff_fffe;
  const mutex = new FairMutex(words, 0, { stopping: false });
  for (let round = 0; round < 6; round++) {
    expect(mutex.lock()).toBe(true);
    mutex.unlock();
  }
  expect(words[0]).toBe(words[1]);
});
