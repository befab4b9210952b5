/**
 * A wait without a fixed end: a transfer takes as long as its network needs, so that what is limited
 * is how long nothing moves.
 *
 * @module
 */
import type { ActiveSession } from "./semaphore.ts";

/** See the module comment. One object serves a thread's waits one after the other. */
export class Patience {
  readonly #session: ActiveSession;
  #limitMs = 0;
  #sinceMs = 0;
  #activity = 0;

  constructor(session: ActiveSession) {
    this.#session = session;
  }

  /** A wait begins, for something that may come within `limitMs` after the session's last activity. */
  begin(limitMs: number): void {
    this.#limitMs = limitMs;
    this.#restart();
  }

  /** Whether it has been long enough; to be asked every tick. */
  isOver(): boolean {
    if (this.#session.activity !== this.#activity) this.#restart();
    return performance.now() - this.#sinceMs >= this.#limitMs;
  }

  #restart(): void {
    this.#sinceMs = performance.now();
    this.#activity = this.#session.activity;
  }
}
