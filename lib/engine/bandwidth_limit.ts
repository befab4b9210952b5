/**
 * Holds the send side to a number of bytes per second. The thread that queues pages waits, so that
 * channels never sleep with a packet in hand.
 *
 * @module
 */
import { WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";

/**
 * Bytes that may run ahead of the limit, as time: short enough for a smooth rate, long enough that
 * a sleep's own inaccuracy does not matter.
 */
const BURST_MS = 20;

/** See the module comment. */
export class BandwidthLimit {
  readonly #bytesPerMs: number;
  readonly #sleepWord = new Int32Array(new SharedArrayBuffer(4));
  #startMs = 0;
  #startBytes = 0;

  /** @param bytesPerSecond 0 for no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Whether there is a limit at all. */
  get active(): boolean {
    return this.#bytesPerMs > 0;
  }

  /** Waits until `bytes`, the total written so far, are within the limit. */
  pace(bytes: number, session: Stoppable): void {
    const now = performance.now();
    if (this.#startMs === 0) {
      this.#startMs = now;
      this.#startBytes = bytes;
      return;
    }
    const dueMs = this.#startMs + (bytes - this.#startBytes) / this.#bytesPerMs;
    if (now - dueMs > BURST_MS) {
      // A pause must not be made up for later with a burst: the clock starts again here.
      this.#startMs = now;
      this.#startBytes = bytes;
    }
    for (let left = dueMs - now; left > BURST_MS && !session.stopping;) {
      Atomics.wait(this.#sleepWord, 0, 0, Math.min(left, WAIT_TICK_MS));
      left = dueMs - performance.now();
    }
  }
}
