import { expect, test } from "bun:test";
import { Semaphore, SEMAPHORE_WORDS } from "../lib/sync/semaphore.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import {
  GATE_HOLD,
  GATE_LOOKS,
  GATE_STOP,
  GATE_WORDS,
  type SyncThreadJob,
} from "./fixtures/sync_thread.ts";
import { TestThread, until } from "./kit/threads.ts";

const SLEEPERS = 1;

/** The words of one semaphore, the gate, and threads over both. */
function setUp() {
  const words = new Int32Array(new SharedArrayBuffer(SEMAPHORE_WORDS * 4));
  const gate = new Int32Array(new SharedArrayBuffer(GATE_WORDS * 4));
  const thread = (job: Pick<SyncThreadJob, "action" | "count" | "limitMs">): TestThread =>
    new TestThread("sync_thread", { ...job, words: words.buffer, gate: gate.buffer });
  const semaphore = new Semaphore(words, 0, {
    get stopping() {
      return Atomics.load(gate, GATE_STOP) !== 0;
    },
  });
  return { words, gate, thread, semaphore };
}

test("Semaphore.tryTake() takes what was posted and no more", () => {
  const { semaphore } = setUp();
  expect(semaphore.tryTake()).toBe(false);
  semaphore.post();
  semaphore.post();
  expect([1, 2, 3].map(() => semaphore.tryTake())).toEqual([true, true, false]);
});

test("Semaphore.takeWhileActive() ends when nothing has moved for its limit, and not before", () => {
  const { semaphore, gate } = setUp();
  const control = new SessionControl();
  let left = 5;
  // Moves bytes every time somebody asks whether it has, until it is idle.
  const session = {
    get stopping() {
      return Atomics.load(gate, GATE_STOP) !== 0;
    },
    get activity() {
      if (left-- > 0) control.noteActivity();
      return control.activity;
    },
    noteActivity: () => control.noteActivity(),
  };
  const start = performance.now();
  expect(semaphore.takeWhileActive(20, session)).toBe("timeout");
  expect(left).toBeLessThan(0);
  expect(performance.now() - start).toBeGreaterThan(50);
  semaphore.post();
  expect(semaphore.takeWhileActive(20, session)).toBe("taken");
});

test("Semaphore.take() ends with its limit", () => {
  const { semaphore, words } = setUp();
  expect(semaphore.take(1)).toBe("timeout");
  expect(Atomics.load(words, SLEEPERS)).toBe(0);
});

test("Semaphore.take() ends with the session, and takes nothing", () => {
  const { semaphore, gate, words } = setUp();
  Atomics.store(gate, GATE_STOP, 1);
  expect(semaphore.take(Infinity)).toBe("stopped");
  expect([...words]).toEqual([0, 0]);
});

test("Semaphore.post() wakes a thread that sleeps", async () => {
  const { semaphore, words, thread } = setUp();
  await using taker = thread({ action: "take" });
  await until("the thread sleeps", () => Atomics.load(words, SLEEPERS) === 1);
  semaphore.post();
  expect(await taker.result()).toBe("taken");
  expect([...words]).toEqual([0, 0]);
});

test("Semaphore.take() sees a post that comes after its last look and before its sleep", async () => {
  const { semaphore, words, gate, thread } = setUp();
  Atomics.store(gate, GATE_HOLD, 1);
  await using taker = thread({ action: "take" });
  // The thread stands in its look at the stop word: it has found the count at zero as often as it
  // spins, and has not yet registered as a sleeper.
  await until("the thread looks at the stop word", () => Atomics.load(gate, GATE_LOOKS) === 1);
  expect([...words]).toEqual([0, 0]);
  semaphore.post();
  Atomics.store(gate, GATE_HOLD, 0);
  Atomics.notify(gate, GATE_HOLD);
  expect(await taker.result()).toBe("taken");
  expect([...words]).toEqual([0, 0]);
  // It did not sleep in between: its first look was its last.
  expect(Atomics.load(gate, GATE_LOOKS)).toBe(1);
});

test("Semaphore.take() of a sleeping thread ends when the session stops, with nobody to wake it", async () => {
  const { words, gate, thread } = setUp();
  await using taker = thread({ action: "take" });
  await until("the thread sleeps", () => Atomics.load(words, SLEEPERS) === 1);
  Atomics.store(gate, GATE_STOP, 1);
  expect(await taker.result()).toBe("stopped");
  expect([...words]).toEqual([0, 0]);
});

test("Semaphore gives each post to exactly one of several threads", async () => {
  const { words, gate, thread } = setUp();
  const count = 20_000;
  await using first = thread({ action: "take-many", count, limitMs: 1000 });
  await using second = thread({ action: "take-many", count, limitMs: 1000 });
  await using third = thread({ action: "post-many", count: count / 2 });
  await using fourth = thread({ action: "post-many", count: count / 2 });
  await Promise.all([third.result(), fourth.result()]);
  await until("all are taken", () => Atomics.load(words, 0) === 0);
  Atomics.store(gate, GATE_STOP, 1);
  const taken = await Promise.all([first.result(), second.result()]);
  expect(Number(taken[0]) + Number(taken[1])).toBe(count);
  expect([...words]).toEqual([0, 0]);
});
