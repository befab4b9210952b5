/**
 * A count in shared memory that several threads add to, beyond 32 bits and without BigInt.
 *
 * @module
 */

const CARRY = 0x1_0000_0000;

/** Two shared words, low and high; exact up to 2^53. */
export class AtomicCounter {
  readonly #words: Int32Array;
  readonly #at: number;

  constructor(words: Int32Array, at: number) {
    this.#words = words;
    this.#at = at;
  }

  /** Adds `amount`, below 2^32, and returns the low 32 bits of the value before. */
  add(amount: number): number {
    const before = Atomics.add(this.#words, this.#at, amount | 0) >>> 0;
    if (before + amount >= CARRY) Atomics.add(this.#words, this.#at + 1, 1);
    return before;
  }

  /** The count as of now. */
  get value(): number {
    for (;;) {
      const high = Atomics.load(this.#words, this.#at + 1) >>> 0;
      const low = Atomics.load(this.#words, this.#at) >>> 0;
      // A carry in between belongs to the other half. One that is still to come shows as a count
      // that is too low for a moment, which a progress display bears.
      if (Atomics.load(this.#words, this.#at + 1) >>> 0 === high) return high * CARRY + low;
    }
  }
}
