/**
 * Decompressed frames of a file in shared memory: whichever thread of the process needs a frame first
 * decompresses it, and all others find it there, until it is the one that nobody has used for longest.
 *
 * @module
 */
import { addressOf, allocateShared } from "../../ffi/arena.ts";
import { TimeoutError } from "../errors.ts";
import { FRAME_CACHE_SLOTS_MIN, FRAME_WAIT_MS, WAIT_TICK_MS } from "../limits.ts";
import { Mutex } from "../sync/mutex.ts";
import { pause, type Stoppable } from "../sync/semaphore.ts";

const LOCK = 0;
const CLOCK = 1; // counts uses, so that a slot can say when it was used
const FILLS = 2; // counts frames that were decompressed
const SLOTS_AT = 16;

const FRAME = 0; // number of the frame, plus 1; 0 for none
const STATE = 1; // changed by the thread that fills the slot; others sleep on it
const PINS = 2; // threads that use the slot
const USED = 3; // the clock at its last use
const SLOT_WORDS = 4;

const EMPTY = 0;
const FILLING = 1;
const READY = 2;

const PAGE_BYTES = 4096;

/** A cache in the form that can be posted to another thread. */
export interface SharedFrameCache {
  readonly buffer: SharedArrayBuffer;
  readonly slots: number;
  /** Room of each slot, in bytes. */
  readonly slotBytes: number;
}

/**
 * Memory for a cache; what is never used of it takes none.
 *
 * @param frameBytesMax Length of the longest frame.
 */
export function allocateFrameCache(cacheBytes: number, frameBytesMax: number): SharedFrameCache {
  const slotBytes = Math.max(1, Math.ceil(frameBytesMax / PAGE_BYTES)) * PAGE_BYTES;
  const slots = Math.max(FRAME_CACHE_SLOTS_MIN, Math.floor(cacheBytes / slotBytes));
  const bytes = framesAt(slots) + slots * slotBytes;
  return { buffer: allocateShared(bytes, "a cache of frames"), slots, slotBytes };
}

function framesAt(slots: number): number {
  return Math.ceil(((SLOTS_AT + slots * SLOT_WORDS) * 4) / PAGE_BYTES) * PAGE_BYTES;
}

/** See the module comment. One thread's use of it; a thread pins one frame at a time. */
export class FrameCache {
  readonly #words: Int32Array;
  readonly #slots: number;
  readonly #slotBytes: number;
  readonly #address: number;
  readonly #mutex: Mutex;
  readonly #session: Stoppable;
  #pinned = -1;

  constructor({ buffer, slots, slotBytes }: SharedFrameCache, session: Stoppable) {
    this.#words = new Int32Array(buffer, 0, SLOTS_AT + slots * SLOT_WORDS);
    this.#slots = slots;
    this.#slotBytes = slotBytes;
    this.#address = addressOf(buffer) + framesAt(slots);
    this.#mutex = new Mutex(this.#words, LOCK, session);
    this.#session = session;
  }

  /**
   * Address of a frame's content, which stays there until the next call or `release()`.
   *
   * @param fill Decompresses the frame to an address; called if nobody has.
   * @throws What `fill` throws, {TimeoutError} when another thread does not come to an end with it.
   */
  use(frame: number, fill: (frame: number, address: number) => void): number {
    this.release();
    const deadline = performance.now() + FRAME_WAIT_MS;
    for (;;) {
      const slot = this.#pin(frame);
      if (slot >= 0) {
        const at = SLOTS_AT + slot * SLOT_WORDS + STATE;
        this.#pinned = slot;
        // Whoever pins an empty slot is the one to fill it.
        if (Atomics.compareExchange(this.#words, at, EMPTY, FILLING) === EMPTY) {
          return this.#fill(slot, frame, fill);
        }
        while (Atomics.load(this.#words, at) === FILLING && this.#goesOn(deadline)) {
          Atomics.wait(this.#words, at, FILLING, WAIT_TICK_MS);
        }
        if (Atomics.load(this.#words, at) === READY) return this.#addressOf(slot);
        this.release(); // the other thread has failed, with an error that is this thread's as well
      } else {
        pause(1, this.#session); // all slots are in use
      }
      if (!this.#goesOn(deadline)) {
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT",
          `Cannot read frame ${frame}: no other thread has decompressed it within ${FRAME_WAIT_MS} ms`,
        );
      }
    }
  }

  /** Lets go of the frame that was used last. */
  release(): void {
    if (this.#pinned < 0) return;
    Atomics.sub(this.#words, SLOTS_AT + this.#pinned * SLOT_WORDS + PINS, 1);
    this.#pinned = -1;
  }

  #goesOn(deadline: number): boolean {
    return !this.#session.stopping && performance.now() < deadline;
  }

  #fill(slot: number, frame: number, fill: (frame: number, address: number) => void): number {
    const at = SLOTS_AT + slot * SLOT_WORDS + STATE;
    const address = this.#addressOf(slot);
    let state: number = EMPTY;
    try {
      fill(frame, address);
      state = READY;
      Atomics.add(this.#words, FILLS, 1);
      return address;
    } finally {
      Atomics.store(this.#words, at, state); // pairs with the loads in `use`
      Atomics.notify(this.#words, at);
      if (state === EMPTY) this.release();
    }
  }

  #addressOf(slot: number): number {
    return this.#address + slot * this.#slotBytes;
  }

  /** Pins the slot that has the frame, or the one to be filled with it; -1 when there is none. */
  #pin(frame: number): number {
    if (!this.#mutex.lock()) return -1;
    const words = this.#words;
    const now = Atomics.add(words, CLOCK, 1) + 1;
    let found = -1;
    let oldest = -1;
    for (let slot = 0; slot < this.#slots; slot++) {
      const at = SLOTS_AT + slot * SLOT_WORDS;
      if (words[at + FRAME] === frame + 1) {
        found = slot;
        break;
      }
      const age = (now - words[at + USED]) | 0;
      if (age > oldest && Atomics.load(words, at + PINS) === 0) {
        oldest = age;
        found = -2 - slot;
      }
    }
    if (found < -1) {
      found = -2 - found;
      const at = SLOTS_AT + found * SLOT_WORDS;
      words[at + FRAME] = frame + 1;
      Atomics.store(words, at + STATE, EMPTY);
    }
    if (found >= 0) {
      const at = SLOTS_AT + found * SLOT_WORDS;
      words[at + USED] = now;
      Atomics.add(words, at + PINS, 1);
    }
    this.#mutex.unlock();
    return found;
  }
}
