import { expect, test } from "bun:test";
import { Mutex } from "../lib/sync/mutex.ts";
import {
  GATE_COUNTER,
  GATE_HELD,
  GATE_RELEASE,
  GATE_STOP,
  GATE_WORDS,
  type SyncThreadJob,
} from "./fixtures/sync_thread.ts";
import { TestThread, until } from "./kit/threads.ts";

const FREE = 0;
const CONTENDED = 2;

function setUp() {
  // The fixture makes a semaphore over the same words, which takes two.
  const words = new Int32Array(new SharedArrayBuffer(2 * 4));
  const gate = new Int32Array(new SharedArrayBuffer(GATE_WORDS * 4));
  const thread = (job: Pick<SyncThreadJob, "action" | "count">): TestThread =>
    new TestThread("sync_thread", { ...job, words: words.buffer, gate: gate.buffer });
  return { words, gate, thread };
}

test("Mutex.lock() and unlock() leave the word free", () => {
  const { words } = setUp();
  const mutex = new Mutex(words, 0, { stopping: false });
  for (let round = 0; round < 3; round++) {
    expect(mutex.lock()).toBe(true);
    expect(Atomics.load(words, 0)).not.toBe(FREE);
    mutex.unlock();
    expect(Atomics.load(words, 0)).toBe(FREE);
  }
});

test("Mutex.unlock() hands over to a thread that sleeps", async () => {
  const { words, gate, thread } = setUp();
  await using holder = thread({ action: "lock-hold" });
  await until("the mutex is held", () => Atomics.load(gate, GATE_HELD) === 1);
  await using waiter = thread({ action: "lock" });
  // Contended means the waiter has stopped spinning: it sleeps or is about to.
  await until("the waiter sleeps", () => Atomics.load(words, 0) === CONTENDED);
  Atomics.store(gate, GATE_RELEASE, 1);
  expect(await holder.result()).toBe(true);
  expect(await waiter.result()).toBe(true);
  expect(Atomics.load(words, 0)).toBe(FREE);
});

test("Mutex.lock() gives up when the session stops, and the holder keeps the mutex", async () => {
  const { words, gate, thread } = setUp();
  await using holder = thread({ action: "lock-hold" });
  await until("the mutex is held", () => Atomics.load(gate, GATE_HELD) === 1);
  await using waiter = thread({ action: "lock" });
  await until("the waiter sleeps", () => Atomics.load(words, 0) === CONTENDED);
  Atomics.store(gate, GATE_STOP, 1);
  expect(await waiter.result()).toBe(false);
  expect(Atomics.load(words, 0)).not.toBe(FREE);
  Atomics.store(gate, GATE_RELEASE, 1);
  expect(await holder.result()).toBe(true);
  expect(Atomics.load(words, 0)).toBe(FREE);
});

test("Mutex lets one thread at a time change what it protects", async () => {
  const { words, gate, thread } = setUp();
  const count = 5000;
  const threads = [1, 2, 3].map(() => thread({ action: "count-under-lock", count }));
  try {
    expect(await Promise.all(threads.map((one) => one.result()))).toEqual([true, true, true]);
  } finally {
    await Promise.all(threads.map((one) => one[Symbol.asyncDispose]()));
  }
  expect(gate[GATE_COUNTER]).toBe(3 * count);
  expect(Atomics.load(words, 0)).toBe(FREE);
});
