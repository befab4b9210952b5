import { expect, test } from "bun:test";
import { ThreadPool, type WorkerFunction } from "../mod.ts";

const module = new URL("./pool_tasks.ts", import.meta.url).href;
const task = (name: string, data?: unknown): WorkerFunction => ({ module, name, data });
const newWords = (): Int32Array => new Int32Array(new SharedArrayBuffer(16));

test("ThreadPool runs more tasks than it has threads, and keeps its threads", async () => {
  await using pool = new ThreadPool({ threadsMax: 2 });
  const words = newWords();
  for (let round = 1; round <= 2; round++) {
    for (let index = 0; index < 10; index++) pool.submit(task("count", words));
    await pool.settled();
    expect(words[0]).toBe(10 * round);
  }
  expect(pool.threads).toBe(2);
  expect(pool.errors).toEqual([]);
});

test("ThreadPool runs tasks at the same time", async () => {
  await using pool = new ThreadPool();
  const words = newWords();
  for (let index = 0; index < 4; index++) pool.submit(task("meet", { words, parties: 4 }));
  await pool.settled();
  expect(pool.errors).toEqual([]);
  expect(pool.threads).toBe(4);
});

test("ThreadPool serves an owner that blocks", () => {
  using pool = new ThreadPool({ threadsMax: 2 });
  pool.prestart(2);
  expect(pool.threads).toBe(2);
  const words = newWords();
  for (let index = 0; index < 7; index++) pool.submit(task("count", words));
  expect(pool.waitAll(20_000)).toBe(true);
  expect(words[0]).toBe(7);
  expect(pool.pending).toBe(0);
});

test("ThreadPool.waitAll() gives up after its limit", () => {
  using pool = new ThreadPool();
  const words = newWords();
  pool.submit(task("blockUntilAborted", words));
  expect(pool.waitAll(50)).toBe(false);
  expect(pool.pending).toBe(1);
  pool.abort();
  expect(pool.waitAll(20_000)).toBe(true);
});

test("ThreadPool aborts all other tasks when one fails, and joins them", async () => {
  await using pool = new ThreadPool();
  const words = newWords();
  for (let index = 0; index < 2; index++) pool.submit(task("blockUntilAborted", words));
  pool.submit(task("waitForSignal", words));
  const failing = pool.submit(task("failAfter", { words, others: 3 }));
  await pool.settled();
  expect(words[2]).toBe(3);
  expect(pool.aborted).toBe(true);
  expect(pool.errors.map((failed) => [failed.task, failed.error.message])).toEqual([
    [failing, "Cannot do this: it is a test"],
  ]);
});

test("ThreadPool never begins a task that waits when it is aborted", async () => {
  await using pool = new ThreadPool({ threadsMax: 1 });
  const words = newWords();
  pool.submit(task("blockUntilAborted", words));
  pool.submit(task("count", words));
  while (Atomics.load(words, 0) === 0) await Bun.sleep(5);
  pool.abort();
  await pool.settled();
  expect(words[0]).toBe(1);
});

test("ThreadPool collects every error when it is not to abort", async () => {
  await using pool = new ThreadPool({ threadsMax: 2, abortOnError: false });
  for (let index = 0; index < 5; index++) pool.submit(task("fail", index));
  await pool.settled();
  const byTask = pool.errors.toSorted((left, right) => left.task - right.task);
  expect(byTask.map(({ error }) => error.message)).toEqual(
    [0, 1, 2, 3, 4].map((index) => `task ${index}`),
  );
  expect(pool.aborted).toBe(false);
});

test("ThreadPool reports a task that ends its thread", async () => {
  await using pool = new ThreadPool();
  pool.submit(task("exitThread"));
  await pool.settled();
  expect(pool.errors.map(({ error }) => error.code)).toEqual(["ERR_MULTIFD_THREAD"]);
});

test("ThreadPool reports a module or function that is not there", async () => {
  await using pool = new ThreadPool({ abortOnError: false });
  pool.submit(task("notAFunction"));
  pool.submit({ module: new URL("./no_such_module.ts", import.meta.url).href });
  await pool.settled();
  const messages = pool.errors.map(({ error }) => error.message).join("\n");
  expect(messages).toContain("it is number, must be a function");
  expect(messages).toContain("no_such_module");
});

test("ThreadPool refuses arguments that cannot work", () => {
  for (const threadsMax of [0, -1, 1.5, 1025]) {
    expect(() => new ThreadPool({ threadsMax })).toThrow(RangeError);
  }
  using pool = new ThreadPool();
  expect(() => pool.submit({ module: "./relative.ts" })).toThrow(TypeError);
  pool[Symbol.dispose]();
  pool[Symbol.dispose]();
  expect(() => pool.submit(task("count", newWords()))).toThrow(RangeError);
});
