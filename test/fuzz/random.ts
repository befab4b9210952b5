/**
 * Random numbers that a seed and a number of input decide, so that each input of a run can be made
 * again without those before it.
 *
 * @module
 */

/** A generator of the xorshift family with 128 bits of state. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number, input: number) {
    this.#a = seed | 0;
    this.#b = input | 0;
    this.#c = Math.floor(input / 0x1_0000_0000) | 0;
    this.#d = 0x9e37_79b9;
    for (let round = 0; round < 12; round++) this.word(); // neighbours differ in every bit then
  }

  /** 32 random bits, as an unsigned number. */
  word(): number {
    const t = this.#a ^ (this.#a << 11);
    this.#a = this.#b;
    this.#b = this.#c;
    this.#c = this.#d;
    this.#d = Math.imul(this.#d ^ (this.#d >>> 19) ^ t ^ (t >>> 8), 0x2c1b_3c6d) ^ this.#a;
    return this.#d >>> 0;
  }

  /** A whole number from 0 up to, not including, `end`. */
  below(end: number): number {
    return Math.floor((this.word() / 0x1_0000_0000) * end);
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of `choices`. */
  pick<Choice>(choices: readonly Choice[]): Choice {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new RangeError("Cannot pick: there is nothing to choose from");
    return choice;
  }
}
