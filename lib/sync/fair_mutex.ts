/**
 * A mutex between threads that serves them in the order in which they asked. Where many producers
 * compete for few channels, a mutex that lets a newcomer overtake sleepers would starve some.
 *
 * @module
 */
import { SPIN_LOADS, WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "./semaphore.ts";

const NEXT_TICKET = 0; // ticket the next thread draws; wraps around
const NOW_SERVING = 1; // ticket of the holder, or of the next one if there is no holder
const TURNS = 2; // words to sleep on, so that an unlock wakes the next thread and not all
const TURN_COUNT = 16;

/** Words one mutex occupies. */
export const FAIR_MUTEX_WORDS = TURNS + TURN_COUNT;

/** See the module comment. Not reentrant. */
export class FairMutex {
  readonly #words: Int32Array;
  readonly #at: number;
  readonly #session: Stoppable;

  constructor(words: Int32Array, at: number, session: Stoppable) {
    this.#words = words;
    this.#at = at;
    this.#session = session;
  }

  /**
   * Locks; false when the session stopped first. The ticket is lost then, and nobody gets the mutex
   * any more: a session that stops never goes on.
   */
  lock(): boolean {
    const words = this.#words;
    const serving = this.#at + NOW_SERVING;
    const ticket = Atomics.add(words, this.#at + NEXT_TICKET, 1);
    for (let load = 0; load < SPIN_LOADS; load++) {
      if (Atomics.load(words, serving) === ticket) return true;
    }
    const turn = this.#turn(ticket);
    for (;;) {
      // Read before the look at the holder: a wake in between then changes the word slept on.
      const seen = Atomics.load(words, turn);
      if (Atomics.load(words, serving) === ticket) return true;
      if (this.#session.stopping) return false;
      Atomics.wait(words, turn, seen, WAIT_TICK_MS);
    }
  }

  /** Unlocks; only the holder may call it. */
  unlock(): void {
    const words = this.#words;
    const next = (Atomics.add(words, this.#at + NOW_SERVING, 1) + 1) | 0;
    if (Atomics.load(words, this.#at + NEXT_TICKET) === next) return;
    const turn = this.#turn(next);
    Atomics.add(words, turn, 1);
    Atomics.notify(words, turn);
  }

  #turn(ticket: number): number {
    return this.#at + TURNS + (ticket & (TURN_COUNT - 1));
  }
}
