/**
 * A mutex on one shared word for short critical sections between threads: spin, then sleep.
 *
 * @module
 */
import { SPIN_LOADS, WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "./semaphore.ts";

const FREE = 0;
const HELD = 1;
const CONTENDED = 2; // held, and somebody sleeps: the holder must wake on release

/** See the module comment. Not reentrant. */
export class Mutex {
  readonly #words: Int32Array;
  readonly #at: number;
  readonly #session: Stoppable;

  constructor(words: Int32Array, at: number, session: Stoppable) {
    this.#words = words;
    this.#at = at;
    this.#session = session;
  }

  /** Locks; false when the session stopped first, and then the mutex is not held. */
  lock(): boolean {
    for (let load = 0; load < SPIN_LOADS; load++) {
      if (Atomics.compareExchange(this.#words, this.#at, FREE, HELD) === FREE) return true;
    }
    while (Atomics.exchange(this.#words, this.#at, CONTENDED) !== FREE) {
      Atomics.wait(this.#words, this.#at, CONTENDED, WAIT_TICK_MS);
      // The word stays CONTENDED, which at worst costs the holder one needless notify.
      if (this.#session.stopping) return false;
    }
    return true;
  }

  /** Unlocks; only the holder may call it. */
  unlock(): void {
    if (Atomics.exchange(this.#words, this.#at, FREE) === CONTENDED) {
      Atomics.notify(this.#words, this.#at, 1);
    }
  }
}
