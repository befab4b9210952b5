/**
 * A counting semaphore on two shared words. It is the only blocking primitive of the engine, so the
 * promise that nothing blocks for ever is kept here: every wait ends with the stop word or a limit, on
 * its time or on that in which nothing moves.
 *
 * @module
 */
import { SPIN_LOADS, WAIT_TICK_MS } from "../limits.ts";

/** Words one semaphore occupies: the count, then the number of sleeping threads. */
export const SEMAPHORE_WORDS = 2;

/** A sleep so short that looking a little longer would have been cheaper. */
const SHORT_SLEEP_MS = 0.05;

/** How a wait ended. */
export type WaitResult = "taken" | "stopped" | "timeout";

/** The part of a session a wait must look at. */
export interface Stoppable {
  /** True once the session is to end. */
  readonly stopping: boolean;
}

/**
 * A session whose threads tell each other that bytes move. How long a transfer takes is the network's
 * affair; what is limited is how long nothing moves at all.
 */
export interface ActiveSession extends Stoppable {
  /** Changes whenever a connection of the session moves bytes. */
  readonly activity: number;
  /** Says that bytes move. */
  noteActivity(): void;
}

/** See the module comment. Any number of threads may post and wait. */
export class Semaphore {
  readonly #words: Int32Array;
  readonly #count: number;
  readonly #sleepers: number;
  readonly #session: Stoppable;
  readonly #spinLoadsMax: number;
  /** Looks before sleeping: grows while looking pays off, shrinks while it does not. */
  #spinLoads: number;

  constructor(words: Int32Array, at: number, session: Stoppable, spinLoadsMax = SPIN_LOADS) {
    this.#words = words;
    this.#count = at;
    this.#sleepers = at + 1;
    this.#session = session;
    this.#spinLoadsMax = spinLoadsMax;
    this.#spinLoads = spinLoadsMax;
  }

  /** Adds one and wakes a sleeper. What was written before is visible to whoever takes it. */
  post(): void {
    Atomics.add(this.#words, this.#count, 1);
    // Sequentially consistent with the sleeper's own order: it registers first and looks at the
    // count afterwards, so either it sees the count or it is seen here.
    if (Atomics.load(this.#words, this.#sleepers) > 0) {
      Atomics.notify(this.#words, this.#count, 1);
    }
  }

  /** Whether there is one to take. */
  get available(): boolean {
    return Atomics.load(this.#words, this.#count) > 0;
  }

  /** Takes one without waiting; false when there is none. */
  tryTake(): boolean {
    let count = Atomics.load(this.#words, this.#count);
    while (count > 0) {
      const seen = Atomics.compareExchange(this.#words, this.#count, count, count - 1);
      if (seen === count) return true;
      count = seen;
    }
    return false;
  }

  /** Takes one, waiting at most `limitMs`. */
  take(limitMs: number): WaitResult {
    if (this.#spin()) return "taken";
    const start = performance.now();
    const deadline = start + limitMs;
    for (;;) {
      if (this.#session.stopping) return "stopped";
      Atomics.add(this.#words, this.#sleepers, 1);
      if (Atomics.load(this.#words, this.#count) === 0) {
        const left = Math.min(WAIT_TICK_MS, deadline - performance.now());
        Atomics.wait(this.#words, this.#count, 0, left);
      }
      Atomics.sub(this.#words, this.#sleepers, 1);
      const now = performance.now();
      if (this.tryTake()) {
        if (now - start < SHORT_SLEEP_MS) this.#spinLoads = this.#spinLoadsMax;
        return "taken";
      }
      if (now >= deadline) return "timeout";
    }
  }

  /**
   * Takes one, waiting as long as the session is active: it ends between one and two limits after the
   * last activity.
   */
  takeWhileActive(limitMs: number, session: ActiveSession): WaitResult {
    for (;;) {
      const { activity } = session;
      const result = this.take(limitMs);
      if (result !== "timeout" || session.activity === activity) return result;
    }
  }

  /** Takes one if it comes within the spin; how the spin ended decides how long the next one is. */
  #spin(): boolean {
    for (let load = 0; load < this.#spinLoads; load++) {
      if (Atomics.load(this.#words, this.#count) > 0 && this.tryTake()) return true;
    }
    // With more threads than processors the poster waits for the very processor we spin on.
    this.#spinLoads >>>= 1;
    return this.tryTake();
  }
}

/** Sleeps for `ms` or until the session stops; whether it slept to the end. */
export function pause(ms: number, session: Stoppable): boolean {
  const never = new Int32Array(new SharedArrayBuffer(SEMAPHORE_WORDS * 4));
  return new Semaphore(never, 0, session, 0).take(ms) === "timeout";
}
