/**
 * The shared words of the receive side (engine description, section 2): each channel waits for its
 * connection, works, and stops at every sync point until the main thread has seen all of them.
 *
 * @module
 */
import { Semaphore } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";

const LINE_WORDS = 32;
const SYNC_REACHED = 0; // semaphore: channels that stand at a sync point
const ENDED = 2; // number of a channel whose connection has ended, +1; 0 = none
const SESSION_WORDS = LINE_WORDS;

const CONNECTED = 0; // semaphore: the connection is registered; posted once by the main thread
const RELEASED = 2; // semaphore: the sync point may be passed; main thread posts
const CHANNEL_WORDS = LINE_WORDS;

/** Each thread makes its own object over the same buffer. */
export class ReceiveState {
  readonly buffer: SharedArrayBuffer;
  /** Posted by a channel that has reached a sync point. */
  readonly syncReached: Semaphore;
  readonly #words: Int32Array;
  readonly #channels: readonly { readonly connected: Semaphore; readonly released: Semaphore }[];

  constructor(source: SharedArrayBuffer | number, control: SessionControl) {
    this.buffer =
      typeof source === "number"
        ? new SharedArrayBuffer((SESSION_WORDS + source * CHANNEL_WORDS) * 4)
        : source;
    const words = new Int32Array(this.buffer);
    this.#words = words;
    this.syncReached = new Semaphore(words, SYNC_REACHED, control);
    this.#channels = Array.from(
      { length: (words.length - SESSION_WORDS) / CHANNEL_WORDS },
      (_, channel) => {
        const at = SESSION_WORDS + channel * CHANNEL_WORDS;
        return {
          connected: new Semaphore(words, at + CONNECTED, control),
          released: new Semaphore(words, at + RELEASED, control),
        };
      },
    );
  }

  /** Channel: the peer has ended the connection between two packets. Wakes who waits for a sync. */
  noteEnded(channel: number): void {
    Atomics.store(this.#words, ENDED, channel + 1);
    this.syncReached.post();
  }

  /** A channel that comes to no further sync point, or -1. */
  get endedChannel(): number {
    return Atomics.load(this.#words, ENDED) - 1;
  }

  /** Posted when the channel's descriptor is registered. */
  connected(channel: number): Semaphore {
    return this.#channels[channel].connected;
  }

  /** Posted when the channel may go on after a sync point. */
  released(channel: number): Semaphore {
    return this.#channels[channel].released;
  }
}
