/**
 * One bucket for all connections of a session, or of several: whoever sends reserves the time its bytes
 * take at the rate, behind what others have reserved, and waits until that time is over. So channels
 * share the rate by what they have to send, and the order of reservations is the order of sending.
 *
 * The clock is the machine's, since those of the runtime begin with each thread, in ticks of a 32-bit
 * word that wraps: about 37 hours either way, so that a bucket nobody has looked at for long counts as
 * full.
 *
 * @module
 */
import { monotonicMs } from "../../ffi/libc.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { ActiveSession } from "./semaphore.ts";

const CHANGE = 0; // counts changes of the rate; waiters sleep on it
const RATE_LOW = 1; // bytes per second; written before CHANGE
const RATE_HIGH = 2;
const DUE = 3; // when all that is reserved will have been sent, in ticks
const SEEN = 4; // when somebody last looked, in seconds
const WORDS = 5;

const TICKS_PER_MS = 16;
/** How far the bucket may lag behind its rate and catch up; a longer pause is not made up for. */
const CATCH_UP_TICKS = 20 * TICKS_PER_MS;
/** After this long without a look the word of ticks may have wrapped. */
const FORGOTTEN_SECONDS = 3600;
/** A single wait is no longer than this, some 18 hours. */
const TICKS_MAX = 2 ** 30;
const HALF = 0x1_0000_0000;

/**
 * A limit on bandwidth that may be given to several sessions, which then share it, and changed while
 * they run.
 *
 * @example
 * ```ts
 * const limit = new BandwidthLimit(100 * 1024 * 1024);
 * await using sender = await connect({ endpoint, blocks, maxBandwidth: limit });
 * const sent = sender.send();
 * limit.bytesPerSecond = 0; // the night has come: no limit any more
 * ```
 */
export class BandwidthLimit {
  /** The shared state; `new BandwidthLimit(buffer)` is the same limit in another thread. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  /**
   * @param limit Bytes per second, 0 for no limit, or the `buffer` of a limit made elsewhere.
   * @throws {RangeError} If it is negative or not a number.
   * @throws {TypeError} If it is no buffer of a limit either.
   */
  constructor(limit: number | SharedArrayBuffer) {
    const isBuffer = limit instanceof SharedArrayBuffer && limit.byteLength === WORDS * 4;
    if (typeof limit !== "number" && !isBuffer) {
      throw new TypeError("Cannot limit bandwidth: must be bytes/s or the buffer of a limit");
    }
    this.buffer = typeof limit === "number" ? new SharedArrayBuffer(WORDS * 4) : limit;
    this.#words = new Int32Array(this.buffer);
    if (typeof limit === "number") this.bytesPerSecond = limit;
  }

  /** Bytes per second over all connections; 0 for no limit. Holds from the next packet on. */
  get bytesPerSecond(): number {
    const high = Atomics.load(this.#words, RATE_HIGH) >>> 0;
    return high * HALF + (Atomics.load(this.#words, RATE_LOW) >>> 0);
  }

  set bytesPerSecond(bytesPerSecond: number) {
    if (!(bytesPerSecond >= 0)) {
      throw new RangeError(
        `Cannot limit bandwidth to ${bytesPerSecond}: must be 0 or more bytes/s`,
      );
    }
    const rate = bytesPerSecond > Number.MAX_SAFE_INTEGER ? 0 : Math.ceil(bytesPerSecond);
    Atomics.store(this.#words, RATE_LOW, rate | 0);
    Atomics.store(this.#words, RATE_HIGH, Math.floor(rate / HALF));
    Atomics.store(this.#words, DUE, nowTicks() | 0);
    Atomics.add(this.#words, CHANGE, 1); // pairs with the load in `pace()`
    Atomics.notify(this.#words, CHANGE);
  }
}

/** One connection's, or one client's, part in a limit. */
export class BandwidthShare {
  readonly #limit: BandwidthLimit;
  readonly #words: Int32Array;
  /** What this object's reservations have been too short by, in ticks below 1. */
  #owed = 0;
  /** When what was reserved last may go, and the count of changes it was reserved under. */
  #due = 0;
  #change = 0;

  /** @param buffer Of the limit. */
  constructor(buffer: SharedArrayBuffer) {
    this.#limit = new BandwidthLimit(buffer);
    this.#words = new Int32Array(buffer);
  }

  /** Bytes that may go in `ms`; infinite without a limit. */
  bytesWithin(ms: number): number {
    const rate = this.#limit.bytesPerSecond;
    return rate === 0 ? Infinity : (rate * ms) / 1000;
  }

  /** Waits until `bytes` more bytes are within the limit, or the session stops. */
  pace(bytes: number, session: ActiveSession): void {
    while (!session.stopping) {
      // Before the rate: a change in between is seen by the wait, and all begins anew.
      const change = Atomics.load(this.#words, CHANGE);
      const rate = this.#limit.bytesPerSecond;
      if (rate === 0) return;
      const ticks = (bytes / rate) * 1000 * TICKS_PER_MS + this.#owed;
      const whole = Math.min(TICKS_MAX, Math.floor(ticks));
      if (!this.#waitUntil(this.#reserve(whole), change, session)) continue;
      this.#owed = ticks % 1;
      return;
    }
  }

  /** Reserves `bytes` for a thread that does something else until they may go, see {@linkcode leftMs}. */
  reserve(bytes: number): void {
    this.#change = Atomics.load(this.#words, CHANGE);
    const rate = this.#limit.bytesPerSecond;
    const ticks = rate === 0 ? 0 : (bytes / rate) * 1000 * TICKS_PER_MS + this.#owed;
    this.#owed = ticks % 1;
    this.#due = this.#reserve(Math.min(TICKS_MAX, Math.floor(ticks)));
  }

  /** How long until what was reserved last may go; 0 when it may, and after a change of the rate. */
  get leftMs(): number {
    if (Atomics.load(this.#words, CHANGE) !== this.#change) return 0;
    return Math.max(0, ((this.#due - nowTicks()) | 0) / TICKS_PER_MS);
  }

  /** Reserves so many ticks behind all others; when they will be over. */
  #reserve(ticks: number): number {
    const now = nowTicks();
    const second = Math.floor(now / TICKS_PER_MS / 1000);
    const seen = Atomics.exchange(this.#words, SEEN, second);
    for (;;) {
      const last = Atomics.load(this.#words, DUE);
      const lag = (now - last) | 0;
      const late = lag > CATCH_UP_TICKS || second - seen > FORGOTTEN_SECONDS;
      const due = ((late ? now - CATCH_UP_TICKS : last) + ticks) | 0;
      if (Atomics.compareExchange(this.#words, DUE, last, due) === last) return due;
    }
  }

  /** Whether the time came; false when the rate has changed or the session stops. */
  #waitUntil(due: number, change: number, session: ActiveSession): boolean {
    for (;;) {
      if (Atomics.load(this.#words, CHANGE) !== change) return false;
      const now = nowTicks();
      const left = (due - now) | 0;
      if (left <= 0) return true;
      if (session.stopping) return false;
      Atomics.store(this.#words, SEEN, Math.floor(now / TICKS_PER_MS / 1000));
      Atomics.wait(this.#words, CHANGE, change, Math.min(left / TICKS_PER_MS, WAIT_TICK_MS));
      session.noteActivity(); // it is slow because it has been told to be
    }
  }
}

/**
 * What an option `maxBandwidth` means, as it travels to threads; undefined where there is no limit.
 *
 * @throws {RangeError} If it is negative or not a number.
 */
export function bandwidthOf(
  maxBandwidth: number | BandwidthLimit | undefined,
): SharedArrayBuffer | undefined {
  if (maxBandwidth instanceof BandwidthLimit) return maxBandwidth.buffer;
  if (maxBandwidth === undefined || maxBandwidth === 0) return undefined;
  return new BandwidthLimit(maxBandwidth).buffer;
}

function nowTicks(): number {
  return Math.floor(monotonicMs() * TICKS_PER_MS);
}
