/**
 * The shared words of the send side: who owns which slot, what is pending, and the semaphores that
 * tell threads to look (engine description, sections 1.1 to 1.4).
 *
 * Every channel owns two slots. One is its mailbox, exchanged with clients; the other is the one it
 * works on. It empties the mailbox before it starts to work, so that the next job is already there
 * when it has finished: with one slot a channel would sleep and wake its client once per packet,
 * which on a machine with as many cores as channels costs more than the packet.
 *
 * @module
 */
import { FAIR_MUTEX_WORDS, FairMutex } from "../sync/fair_mutex.ts";
import { Semaphore } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { SlotTable, type Slot } from "./slot.ts";

const LINE_WORDS = 32; // 128 bytes: neighbours on different lines share no cache line

// Session words, one line each.
const CHANNELS_READY = 0; // semaphore: mailboxes that are empty
const CHANNELS_CREATED = LINE_WORDS; // semaphore: connection attempts that have ended
const SEND_MUTEX = 2 * LINE_WORDS; // serialises clients, in the order in which they come
const NEXT_CHANNEL = 2 * LINE_WORDS + FAIR_MUTEX_WORDS; // round-robin start; under the send mutex
const PACKET_NUMBER = 3 * LINE_WORDS; // next packet number, modulo 2^32: for diagnostics only
const CONNECT_GATE = 4 * LINE_WORDS; // 1 once the main connection is up and channels may connect
const SESSION_WORDS = 5 * LINE_WORDS;

// Channel words; the first line is written by clients, the second by the channel.
const JOB_PENDING = 0; // 1 = the mailbox holds a job; client sets, channel clears
const MAILBOX = 1; // slot number; written by a client while idle, by the channel while pending
const SYNC_PENDING = 2; // 1 = a SYNC packet is asked for, 2 = the end; coordinator sets, channel clears
const WORK = 4; // semaphore: there is something to do
const SYNC_DONE = LINE_WORDS; // semaphore: a sync request has been carried out
const CHANNEL_WORDS = 2 * LINE_WORDS;

/** What a thread needs to take part in a session's send side. */
export interface SendStateHandle {
  readonly words: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly channels: number;
  readonly clients: number;
  readonly pageSize: number;
}

/** See the module comment. Each thread makes its own object over the same buffers. */
export class SendState {
  readonly handle: SendStateHandle;
  readonly slots: readonly Slot[];
  /** Posted once for every mailbox that becomes empty; every hand-off takes one. */
  readonly channelsReady: Semaphore;
  /** Posted once per channel when its connection attempt has ended, well or badly. */
  readonly channelsCreated: Semaphore;
  readonly #channels: readonly ChannelWords[];
  readonly #words: Int32Array;
  readonly #control: SessionControl;
  readonly #sendMutex: FairMutex;

  /** Makes the state of a new session. */
  static create(
    options: { channels: number; clients: number; pageSize: number },
    control: SessionControl,
  ): SendState {
    const { channels, clients, pageSize } = options;
    const words = new SharedArrayBuffer((SESSION_WORDS + channels * CHANNEL_WORDS) * 4);
    const slots = new SlotTable(pageSize, 2 * channels + clients).buffer;
    const state = new SendState({ words, slots, channels, clients, pageSize }, control);
    for (let channel = 0; channel < channels; channel++) {
      state.channel(channel).mailbox = mailboxSlot(channel);
    }
    return state;
  }

  constructor(handle: SendStateHandle, control: SessionControl) {
    this.handle = handle;
    this.#control = control;
    this.#words = new Int32Array(handle.words);
    this.slots = new SlotTable(handle.pageSize, handle.slots).slots;
    this.channelsReady = new Semaphore(this.#words, CHANNELS_READY, control);
    this.channelsCreated = new Semaphore(this.#words, CHANNELS_CREATED, control);
    this.#sendMutex = new FairMutex(this.#words, SEND_MUTEX, control);
    this.#channels = Array.from(
      { length: handle.channels },
      (_, channel) =>
        new ChannelWords(this.#words, SESSION_WORDS + channel * CHANNEL_WORDS, control),
    );
  }

  /** The words of one channel. */
  channel(channel: number): ChannelWords {
    return this.#channels[channel];
  }

  /** Slot number a channel starts to work with. */
  workingSlot(channel: number): number {
    return this.handle.channels + channel;
  }

  /** Slot number client `client` starts with. */
  clientSlot(client: number): number {
    return 2 * this.handle.channels + client;
  }

  /** Takes the next packet number. */
  takePacketNumber(): number {
    return Atomics.add(this.#words, PACKET_NUMBER, 1) >>> 0;
  }

  /** Whether channels may connect: the main connection must be first. */
  get connectGateOpen(): boolean {
    return Atomics.load(this.#words, CONNECT_GATE) !== 0;
  }

  /** Lets the channels connect. */
  openConnectGate(): void {
    Atomics.store(this.#words, CONNECT_GATE, 1);
    Atomics.notify(this.#words, CONNECT_GATE);
  }

  /** Sleeps until the gate opens, at most `tickMs`. */
  waitConnectGate(tickMs: number): void {
    Atomics.wait(this.#words, CONNECT_GATE, 0, tickMs);
  }

  /** Wakes every channel to look at the stop word, instead of letting it find out with its tick. */
  wakeChannels(): void {
    for (const channel of this.#channels) channel.work.post();
  }

  /**
   * Exchanges a full slot for an empty one with the next idle channel. Blocks while no channel is
   * idle, unless nothing moves in the session for `limitMs`.
   *
   * @returns The empty slot's number, or -1 when the session stopped or nothing moved.
   */
  handOff(slot: number, limitMs: number): number {
    if (!this.#sendMutex.lock()) return -1;
    try {
      if (this.channelsReady.takeWhileActive(limitMs, this.#control) !== "taken") return -1;
      const { channels } = this.handle;
      let index = this.#words[NEXT_CHANNEL] % channels;
      // Ends: the semaphore counts empty mailboxes, and only the mutex holder fills one.
      while (this.channel(index).jobPending) {
        if (this.#control.stopping) return -1;
        index = (index + 1) % channels;
      }
      this.#words[NEXT_CHANNEL] = (index + 1) % channels;
      return this.channel(index).deliver(slot);
    } finally {
      this.#sendMutex.unlock();
    }
  }
}

/** The words of one channel, for its clients, the coordinator and the channel itself. */
export class ChannelWords {
  /** Posted once for each job and each sync request. */
  readonly work: Semaphore;
  /** Posted by the channel when a sync request has been carried out. */
  readonly syncDone: Semaphore;
  readonly #words: Int32Array;
  readonly #at: number;

  constructor(words: Int32Array, at: number, control: SessionControl) {
    this.#words = words;
    this.#at = at;
    this.work = new Semaphore(words, at + WORK, control);
    this.syncDone = new Semaphore(words, at + SYNC_DONE, control);
  }

  set mailbox(slot: number) {
    this.#words[this.#at + MAILBOX] = slot;
  }

  /** Whether the mailbox holds a job. Pairs with the stores in `deliver()` and `collect()`. */
  get jobPending(): boolean {
    return Atomics.load(this.#words, this.#at + JOB_PENDING) !== 0;
  }

  /** Client: puts a full slot into the empty mailbox and returns the slot that lay there. */
  deliver(slot: number): number {
    const empty = this.#words[this.#at + MAILBOX];
    this.#words[this.#at + MAILBOX] = slot;
    Atomics.store(this.#words, this.#at + JOB_PENDING, 1); // pairs with the load in `jobPending`
    this.work.post();
    return empty;
  }

  /** Channel: takes the full slot out of the mailbox and leaves an empty one. */
  collect(empty: number): number {
    const slot = this.#words[this.#at + MAILBOX];
    this.#words[this.#at + MAILBOX] = empty;
    Atomics.store(this.#words, this.#at + JOB_PENDING, 0); // pairs with the load in `jobPending`
    return slot;
  }

  /** Coordinator: asks for a sync; there must be none pending. */
  requestSync(): void {
    Atomics.store(this.#words, this.#at + SYNC_PENDING, 1);
    this.work.post();
  }

  /** Coordinator: asks for the end of the connection, as for a sync. */
  requestEnd(): void {
    Atomics.store(this.#words, this.#at + SYNC_PENDING, 2);
    this.work.post();
  }

  /** Channel: whether a sync is requested. Looked at before the mailbox, which is filled first. */
  get syncPending(): boolean {
    return Atomics.load(this.#words, this.#at + SYNC_PENDING) === 1;
  }

  /** Channel: takes the pending request. */
  takeSync(): "sync" | "end" | "none" {
    const request = Atomics.exchange(this.#words, this.#at + SYNC_PENDING, 0);
    return request === 0 ? "none" : request === 1 ? "sync" : "end";
  }
}

function mailboxSlot(channel: number): number {
  return channel;
}
