/**
 * Holds one channel to its share of the migration's bandwidth. A rate is kept by waiting before a
 * packet, so at most one packet per channel runs ahead of it.
 *
 * @module
 */
import { WAIT_TICK_MS } from "../limits.ts";
import type { ActiveSession } from "../sync/semaphore.ts";

/** How far behind its rate a channel may catch up; a longer pause is not made up for by a burst. */
const CATCH_UP_MS = 50;

/** See the module comment. */
export class BandwidthLimit {
  readonly #bytesPerMs: number;
  readonly #sleepWord = new Int32Array(new SharedArrayBuffer(4));
  #dueMs = 0;

  /** @param bytesPerSecond 0 for no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Waits until `bytes` more bytes are within the limit, or the session stops. */
  pace(bytes: number, session: ActiveSession): void {
    if (this.#bytesPerMs === 0) return;
    const now = performance.now();
    this.#dueMs = Math.max(this.#dueMs, now - CATCH_UP_MS);
    for (let left = this.#dueMs - now; left > 0 && !session.stopping;) {
      Atomics.wait(this.#sleepWord, 0, 0, Math.min(left, WAIT_TICK_MS));
      session.noteActivity(); // it is slow because it has been told to be
      left = this.#dueMs - performance.now();
    }
    this.#dueMs += bytes / this.#bytesPerMs;
  }
}
