/**
 * The end of what has gone through a relay, in shared memory: the thread of the main connection
 * writes it, and the one of the return path asks whether all of a stream can have been sent when the
 * destination says that it has everything.
 *
 * @module
 */
import { DESCRIPTION_BYTES_MAX } from "../limits.ts";
import { looksComplete } from "../wire/opaque_state.ts";

/** What the longest description needs, with the footer and the end mark in front of it. */
const TAIL_BYTES = DESCRIPTION_BYTES_MAX + 16;

const TOTAL = 0; // bytes so far, counted up to twice the ring, then around its length
const WORDS = 1;

/** See the module comment. Each thread makes its own object over the same buffer. */
export class StreamTail {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #ring: Uint8Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(WORDS * 4 + TAIL_BYTES)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS);
    this.#ring = new Uint8Array(buffer, WORDS * 4, TAIL_BYTES);
  }

  /** Adds bytes of the device state. To be called before they go on to the destination. */
  append(bytes: Uint8Array): void {
    let total = this.#words[TOTAL];
    for (let done = 0; done < bytes.byteLength;) {
      const at = total % TAIL_BYTES;
      const count = Math.min(TAIL_BYTES - at, bytes.byteLength - done);
      this.#ring.set(bytes.subarray(done, done + count), at);
      done += count;
      total += count;
      if (total >= 2 * TAIL_BYTES) total -= TAIL_BYTES; // still above the length: the ring is full
    }
    Atomics.store(this.#words, TOTAL, total); // pairs with the load in `isComplete`
  }

  /** Whether what came last can be the end of a stream. */
  get isComplete(): boolean {
    const total = Atomics.load(this.#words, TOTAL);
    if (total < TAIL_BYTES) return looksComplete(this.#ring.slice(0, total));
    const at = total % TAIL_BYTES;
    const bytes = new Uint8Array(TAIL_BYTES);
    bytes.set(this.#ring.subarray(at));
    bytes.set(this.#ring.subarray(0, at), TAIL_BYTES - at);
    return looksComplete(bytes);
  }
}
