/**
 * Chooses the compression level while a channel works, so that neither its processor nor its network
 * idles. A channel encodes a packet and then sends it; when much of the time goes into sending, the
 * network is the bottleneck and a higher level costs nothing; when next to none does, the processor
 * is and a lower level gets more pages across.
 *
 * Time without work does not count: it says nothing about either.
 *
 * @module
 */

/** Time over which shares are taken; a packet is too short to judge by. */
const WINDOW_MS = 50;

/** Share of sending from which on the processor has time to spare. */
const RAISE_SHARE = 0.4;

/** Share of sending below which the network waits for the processor. */
const LOWER_SHARE = 0.1;

/** Windows without another attempt after a level turned out too high; doubles each time. */
const HOLD_WINDOWS_MIN = 4;
const HOLD_WINDOWS_MAX = 256;

/** See the module comment. One object serves a channel for its whole life. */
export class LevelGovernor {
  /** The level in use. */
  level: number;
  readonly #steps: readonly number[];
  #step: number;
  #encodeMs = 0;
  #sendMs = 0;
  /** The step that was too high last, and how often it is to be left alone. */
  #ceiling = Infinity;
  #holdWindows = HOLD_WINDOWS_MIN;
  #windowsLeft = 0;

  /**
   * @param steps Levels to choose from, rising.
   * @param level One of them, to begin with.
   */
  constructor(steps: readonly number[], level: number) {
    this.#steps = steps;
    this.#step = steps.indexOf(level);
    this.level = level;
    if (this.#step < 0) {
      throw new RangeError(`Cannot start at level ${level}: must be one of ${steps.join(", ")}`);
    }
  }

  /**
   * Takes the times of one packet.
   *
   * @returns Whether {@linkcode level} has changed.
   */
  observe(encodeMs: number, sendMs: number): boolean {
    this.#encodeMs += encodeMs;
    this.#sendMs += sendMs;
    const totalMs = this.#encodeMs + this.#sendMs;
    if (totalMs < WINDOW_MS) return false;
    const share = this.#sendMs / totalMs;
    this.#encodeMs = 0;
    this.#sendMs = 0;
    if (this.#windowsLeft > 0) this.#windowsLeft--;
    if (share >= RAISE_SHARE) return this.#raise();
    if (share < LOWER_SHARE) return this.#lower();
    return false;
  }

  #raise(): boolean {
    const next = this.#step + 1;
    if (next >= this.#steps.length) return false;
    if (next >= this.#ceiling && this.#windowsLeft > 0) return false;
    return this.#moveTo(next);
  }

  #lower(): boolean {
    if (this.#step === 0) return false;
    // The same step again: conditions have not changed, so it is tried less often from now on.
    this.#holdWindows =
      this.#ceiling === this.#step
        ? Math.min(2 * this.#holdWindows, HOLD_WINDOWS_MAX)
        : HOLD_WINDOWS_MIN;
    this.#ceiling = this.#step;
    this.#windowsLeft = this.#holdWindows;
    return this.#moveTo(this.#step - 1);
  }

  #moveTo(step: number): boolean {
    this.#step = step;
    this.level = this.#steps[step];
    return true;
  }
}
