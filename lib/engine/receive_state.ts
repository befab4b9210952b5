/**
 * The shared words of the receive side (engine description, section 2): each channel waits for its
 * connection, works, and stops at every sync point until the main thread has seen all of them. At the
 * end the channels are asked to read what there is and to stop, since only then is it known that
 * nothing is missing and nothing is left over.
 *
 * @module
 */
import type { Link } from "../net/transport.ts";
import { Semaphore } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";

const LINE_WORDS = 32;
const SYNC_REACHED = 0; // semaphore: channels that stand at a sync point
const ENDED = 2; // number of a channel whose connection has ended, +1; 0 = none
const CLOSING = 3; // 1 = the main stream is complete; main thread writes
const POINTS = 6; // sync points that the main stream had; written before CLOSING
const ENDS = 4; // semaphore: channels that have read their connection to its end
const SESSION_WORDS = LINE_WORDS;

const CONNECTED = 0; // semaphore: the connection is registered; posted once by the main thread
const RELEASED = 2; // semaphore: the sync point may be passed; main thread posts
const SYNCS = 4; // SYNC packets seen; the channel writes
const UNSYNCED = 5; // 1 = pages have come since the last of them; the channel writes
const UNDER_WAY = 6; // 1 = bytes of a packet have been read, and not all of it; the channel writes
const LINK = 8; // descriptor and address of its state, 64 bits; main thread writes before CONNECTED
const CHANNEL_WORDS = LINE_WORDS;

/** Each thread makes its own object over the same buffer. */
export class ReceiveState {
  readonly buffer: SharedArrayBuffer;
  /** Posted by a channel that has reached a sync point. */
  readonly syncReached: Semaphore;
  /** Posted by a channel that has read its connection to the end, between two packets. */
  readonly ends: Semaphore;
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
    this.ends = new Semaphore(words, ENDS, control);
    this.#channels = Array.from(
      { length: (words.length - SESSION_WORDS) / CHANNEL_WORDS },
      (_, channel) => ({
        connected: new Semaphore(words, wordOf(channel, CONNECTED), control),
        released: new Semaphore(words, wordOf(channel, RELEASED), control),
      }),
    );
  }

  /** Channel: the peer has ended the connection between two packets. Wakes who waits for a sync. */
  noteEnded(channel: number): void {
    Atomics.store(this.#words, ENDED, channel + 1);
    this.syncReached.post();
    this.ends.post();
  }

  /** A channel that comes to no further sync point, or -1. */
  get endedChannel(): number {
    return Atomics.load(this.#words, ENDED) - 1;
  }

  /** Channel: pages have come, which no sync point covers yet. */
  notePages(channel: number): void {
    Atomics.store(this.#words, wordOf(channel, UNSYNCED), 1);
  }

  /** Channel: a SYNC has come and everything before it is in place. */
  noteSync(channel: number): void {
    Atomics.store(this.#words, wordOf(channel, UNSYNCED), 0);
    Atomics.add(this.#words, wordOf(channel, SYNCS), 1);
  }

  /** Channel: a packet has begun, or has been dealt with and no byte of another is here. */
  noteUnderWay(channel: number, isUnderWay: boolean): void {
    Atomics.store(this.#words, wordOf(channel, UNDER_WAY), isUnderWay ? 1 : 0);
  }

  /** Whether the channel is in the middle of a packet. */
  isUnderWay(channel: number): boolean {
    return Atomics.load(this.#words, wordOf(channel, UNDER_WAY)) !== 0;
  }

  /** SYNC packets that the channel has come to. */
  syncs(channel: number): number {
    return Atomics.load(this.#words, wordOf(channel, SYNCS));
  }

  /** Whether pages have come on the channel since its last SYNC. */
  hasUnsyncedPages(channel: number): boolean {
    return Atomics.load(this.#words, wordOf(channel, UNSYNCED)) !== 0;
  }

  /**
   * Main thread: nothing may come any more after `syncPoints` sync points. Wakes channels that stand at
   * one more.
   */
  close(channels: number, syncPoints: number): void {
    this.#words[POINTS] = syncPoints;
    Atomics.store(this.#words, CLOSING, 1); // pairs with the load in `closing`
    for (let channel = 0; channel < channels; channel++) this.released(channel).post();
  }

  /** Whether the main stream is complete, so that a channel's next packet is one too many. */
  get closing(): boolean {
    return Atomics.load(this.#words, CLOSING) !== 0;
  }

  /** Channel: whether it stands at a sync point that the main stream does not have. */
  standsBehindEnd(channel: number): boolean {
    return this.closing && this.syncs(channel) > this.#words[POINTS];
  }

  /** Posted when the channel's descriptor is registered. */
  connected(channel: number): Semaphore {
    return this.#channels[channel].connected;
  }

  /** Main thread: hands the channel's connection over; to be followed by a post of `connected`. */
  setLink(channel: number, { fd, state = 0 }: Link): void {
    const at = wordOf(channel, LINK);
    this.#words[at] = fd;
    this.#words[at + 1] = state % 0x1_0000_0000;
    this.#words[at + 2] = state / 0x1_0000_0000;
  }

  /** Channel: its connection, after `connected` was taken. */
  link(channel: number): Link {
    const at = wordOf(channel, LINK);
    const [fd, low, high] = this.#words.subarray(at, at + 3);
    return { fd, state: (high >>> 0) * 0x1_0000_0000 + (low >>> 0) };
  }

  /** Posted when the channel may go on after a sync point. */
  released(channel: number): Semaphore {
    return this.#channels[channel].released;
  }
}

function wordOf(channel: number, word: number): number {
  return SESSION_WORDS + channel * CHANNEL_WORDS + word;
}
