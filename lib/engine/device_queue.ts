/**
 * Reassembly of one device's state at the destination: channel threads put buffers in, by index and
 * in any order; the device's load thread takes them out in order (engine description, section 4).
 *
 * Going above a limit is an error and not a wait, unless a device asks for it: the buffer everybody
 * waits for may be behind the very channel that would be made to wait, which only a time limit ends.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { ChannelError, DeviceError, LimitError, TimeoutError } from "../errors.ts";
import { CHANNELS_MAX, TIMEOUTS_DEFAULT, WAIT_TICK_MS } from "../limits.ts";
import { Mutex } from "../sync/mutex.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { BuddyHeap } from "./buddy_heap.ts";
import { encodeIdstr, type DeviceIdentity } from "./device_table.ts";
import { isInPlace, type DeviceTarget } from "./device_target.ts";

// Words of a queue, under the mutex unless said otherwise.
const MUTEX = 0;
const CHANGES = 1; // counts whatever the load thread may wait for; notified
const NEXT = 2; // index the load thread needs next
const QUEUED = 3; // buffers in the queue, those still being read from a channel included
const SEEN = 4; // one above the highest index so far
const CONFIG = 5; // index of the config, +1; 0 = not seen
const ARRIVED = 6; // buffers read completely, config included
const EXPECTED = 7; // buffers the sender says it has sent, +1; 0 = not said
const RAM_LOADED = 8; // 1 once all RAM is in place
// 64-bit floats, by float index:
const QUEUED_BYTES = 8;
const LOADED_BYTES = 9;
const LOADED_BUFFERS = 10;
const NEXT_IN_TURN = -1; // in place of an index: the one after the highest so far
const RING_AT = 32; // words; entries of 4
const ENTRY_WORDS = 4;

// Words of an entry.
const STATE = 0;
const OFFSET = 1; // of the data in the heap
const BYTES = 2;
const IN_PLACE = 3; // 1 = the data is in the target, not in the heap

const EMPTY = 0;
const READING = 1;
const READY = 2;

/** Indices between the buffer needed next and any other, beyond the limit on queued buffers. */
const RING_SLACK = CHANNELS_MAX;

/** Limits of one device at the destination. */
export interface DeviceLimits {
  /** Bytes that may wait for the load thread. */
  readonly queuedBytesMax: number;
  /** Buffers that may wait for the load thread. */
  readonly queuedBuffersMax: number;
  /** Whether channels wait for room while the device is being loaded, instead of failing. */
  readonly waitWhenFull?: boolean;
}

/** The shared parts of a queue, to attach in another thread. */
export interface DeviceQueueHandle extends DeviceIdentity, Required<DeviceLimits> {
  readonly words: SharedArrayBuffer;
  readonly heap: SharedArrayBuffer;
  readonly target: DeviceTarget | undefined;
}

/** A buffer for the load thread, valid until `release()`. */
export interface QueuedBuffer {
  readonly idx: number;
  readonly config: boolean;
  /** The data, in shared memory. */
  readonly bytes: Uint8Array;
  /** Address of the first byte; page aligned for data of half a page and above. */
  readonly address: number;
}

/** Makes the shared parts of a queue. Nothing of the heap takes memory before it is used. */
export function createDeviceQueue(
  device: DeviceIdentity & DeviceLimits,
  target?: DeviceTarget,
): DeviceQueueHandle {
  const {
    idstr,
    instanceId,
    format,
    queuedBytesMax,
    queuedBuffersMax,
    waitWhenFull = false,
  } = device;
  // Blocks are powers of two: at worst twice the data, and small buffers take a smallest block.
  const heap = new BuddyHeap(2 * queuedBytesMax + queuedBuffersMax * 512);
  const ring = (queuedBuffersMax + RING_SLACK) * ENTRY_WORDS;
  const words = new SharedArrayBuffer((RING_AT + ring) * 4);
  const limits = { queuedBytesMax, queuedBuffersMax, waitWhenFull };
  return { idstr, instanceId, format, ...limits, words, heap: heap.buffer, target };
}

/** See the module comment. Each thread makes its own object over the same handle. */
export class DeviceQueue {
  readonly handle: DeviceQueueHandle;
  /** The id string without NUL. */
  readonly idBytes: Uint8Array;
  readonly instanceId: number;
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #mutex: Mutex;
  readonly #heap: BuddyHeap;
  readonly #heapAddress: number;
  readonly #targetAddress: number;
  readonly #ring: number;
  readonly #session: Stoppable;
  readonly #limitMs: number;

  /** @param limitMs How long a channel waits for room while nothing is loaded. */
  constructor(
    handle: DeviceQueueHandle,
    session: Stoppable,
    limitMs: number = TIMEOUTS_DEFAULT.stallMs,
  ) {
    this.#limitMs = limitMs;
    this.handle = handle;
    this.idBytes = encodeIdstr(handle.idstr);
    this.instanceId = handle.instanceId;
    this.#session = session;
    this.#words = new Int32Array(handle.words);
    this.#floats = new Float64Array(handle.words, 0, RING_AT / 2);
    this.#mutex = new Mutex(this.#words, MUTEX, session);
    this.#heap = new BuddyHeap(handle.heap);
    this.#heapAddress = addressOf(handle.heap);
    const { target } = handle;
    this.#targetAddress = target === undefined ? 0 : addressOf(target.buffer) + target.byteOffset;
    this.#ring = (this.#words.length - RING_AT) / ENTRY_WORDS;
  }

  /** Name for messages. */
  get name(): string {
    return `device ${this.handle.idstr} instance ${this.instanceId}`;
  }

  /** Channel: makes room for the next buffer of a raw device; see {@linkcode reserve}. */
  reserveNext(bytes: number): number {
    return this.reserve(NEXT_IN_TURN, false, bytes);
  }

  /**
   * Channel: checks a buffer against all that has come before and makes room for it, or waits until
   * there is room if the device asked for that and is being loaded.
   *
   * @returns The index, for {@linkcode addressOf} and {@linkcode commit}.
   * @throws {DeviceError} for an index that cannot be.
   * @throws {LimitError} when more would wait than may.
   */
  reserve(idx: number, config: boolean, bytes: number): number {
    let next = -1;
    let deadline = 0;
    for (;;) {
      const seen = Atomics.load(this.#words, CHANGES);
      this.#lock();
      try {
        const place = idx === NEXT_IN_TURN ? this.#words[SEEN] >>> 0 : idx;
        this.#checkIndex(place, config);
        const excess = this.#reserve(place, config, bytes);
        if (excess === undefined) return place;
        // Whoever loads makes room; as long as it does so, there is reason to wait.
        if (this.#words[NEXT] !== next) deadline = performance.now() + this.#limitMs;
        next = this.#words[NEXT];
        // Also before the load thread runs: buffers may be faster than its start.
        if (!this.handle.waitWhenFull || performance.now() >= deadline) throw excess;
      } finally {
        this.#mutex.unlock();
      }
      Atomics.wait(this.#words, CHANGES, seen, WAIT_TICK_MS);
    }
  }

  /** Channel: address of the room made for a buffer. */
  addressOf(idx: number): number {
    const entry = this.#entry(idx);
    if (this.#words[entry + IN_PLACE] !== 0) {
      return this.#targetAddress + idx * this.handle.target!.chunkBytes;
    }
    return this.#heapAddress + (this.#words[entry + OFFSET] >>> 0);
  }

  /** Channel: the buffer's data is complete. */
  commit(idx: number): void {
    this.#lock();
    this.#words[this.#entry(idx) + STATE] = READY;
    this.#words[ARRIVED]++;
    this.#mutex.unlock();
    this.#signal();
  }

  /** Main thread: the sender says how many buffers it has sent. */
  expect(buffers: number): void {
    this.#lock();
    this.#words[EXPECTED] = buffers + 1;
    this.#mutex.unlock();
    this.#signal();
  }

  /** Main thread: all RAM is in place, a config that waits for it may be loaded. */
  ramLoaded(): void {
    Atomics.store(this.#words, RAM_LOADED, 1);
    this.#signal();
  }

  /** Whether anything has arrived. */
  get begun(): boolean {
    return Atomics.load(this.#words, SEEN) !== 0;
  }

  /** Buffers that have been read completely. */
  get arrived(): number {
    return Atomics.load(this.#words, ARRIVED) >>> 0;
  }

  /** Bytes and buffers that the load thread has finished with; read without the mutex. */
  get loaded(): { readonly bytes: number; readonly buffers: number } {
    return { bytes: this.#floats[LOADED_BYTES], buffers: this.#floats[LOADED_BUFFERS] };
  }

  /** What there is to wait for, for messages; read without the mutex. */
  get standstill(): string {
    const next = this.#words[NEXT] >>> 0;
    const here = this.#words[this.#entry(next) + STATE] === READY;
    return `${this.name}: buffer ${next} ${here ? "was not loaded" : "did not come"}`;
  }

  /**
   * Load thread: waits for the buffer that is next; undefined when a raw device's state is complete.
   * It stays in the queue until {@linkcode release}.
   *
   * @param limitMs How long to wait for one buffer.
   * @throws {DeviceError} when it never comes, {TimeoutError} when it does not come in time.
   */
  take(limitMs: number): QueuedBuffer | undefined {
    const deadline = performance.now() + limitMs;
    for (;;) {
      const seen = Atomics.load(this.#words, CHANGES);
      this.#lock();
      try {
        const found = this.#look();
        if (found !== "wait") return found;
      } finally {
        this.#mutex.unlock();
      }
      if (performance.now() >= deadline) {
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT_DEVICE",
          `Cannot load ${this.standstill} within ${limitMs} ms`,
        );
      }
      Atomics.wait(this.#words, CHANGES, seen, WAIT_TICK_MS);
    }
  }

  /** Load thread: waits until all RAM is in place, at most `limitMs`. */
  waitRamLoaded(limitMs: number): void {
    const deadline = performance.now() + limitMs;
    for (;;) {
      const seen = Atomics.load(this.#words, CHANGES);
      if (Atomics.load(this.#words, RAM_LOADED) !== 0) return;
      if (this.#session.stopping) throw this.#stopped();
      if (performance.now() >= deadline) {
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT_DEVICE",
          `Cannot load the config of ${this.name}: RAM was not complete within ${limitMs} ms`,
        );
      }
      Atomics.wait(this.#words, CHANGES, seen, WAIT_TICK_MS);
    }
  }

  /** Load thread: is done with the buffer taken last. */
  release(): void {
    this.#lock();
    const entry = this.#entry(this.#words[NEXT] >>> 0);
    const bytes = this.#words[entry + BYTES];
    if (this.#words[entry + IN_PLACE] === 0) {
      this.#heap.release(this.#words[entry + OFFSET] >>> 0);
      this.#floats[QUEUED_BYTES] -= bytes;
    }
    this.#words[entry + STATE] = EMPTY;
    this.#words[NEXT]++;
    this.#words[QUEUED]--;
    this.#floats[LOADED_BYTES] += bytes;
    this.#floats[LOADED_BUFFERS]++;
    this.#mutex.unlock();
    if (this.handle.waitWhenFull) this.#signal();
  }

  #look(): QueuedBuffer | undefined | "wait" {
    const words = this.#words;
    const idx = words[NEXT] >>> 0;
    const entry = this.#entry(idx);
    if (words[entry + STATE] === READY) {
      const config = words[CONFIG] >>> 0 === idx + 1;
      return { idx, config, bytes: this.#view(idx, entry), address: this.addressOf(idx) };
    }
    const expected = words[EXPECTED] >>> 0;
    if (expected === 0 || words[ARRIVED] >>> 0 < expected - 1) return "wait";
    if (this.handle.format === "raw" && idx === expected - 1) return undefined;
    throw new DeviceError(
      "ERR_MULTIFD_DEVICE_GAP",
      `Cannot load ${this.name}: buffer ${idx} is missing, all ${expected - 1} buffers of the sender are here`,
    );
  }

  /** Makes room for a buffer; what speaks against it if there is none. */
  #reserve(idx: number, config: boolean, bytes: number): LimitError | undefined {
    const { queuedBytesMax, queuedBuffersMax, waitWhenFull } = this.handle;
    const words = this.#words;
    const distance = idx - (words[NEXT] >>> 0);
    const queued = words[QUEUED] + 1;
    const inPlace = isInPlace(this.handle.target, idx, config, bytes);
    const queuedBytes = this.#floats[QUEUED_BYTES] + (inPlace ? 0 : bytes);
    // The buffer that is needed next makes room itself: it must not wait for those behind it.
    const needed = waitWhenFull && distance === 0;
    if ((queued > queuedBuffersMax && !needed) || distance >= this.#ring) {
      return new LimitError(
        "ERR_MULTIFD_LIMIT_DEVICE_BUFFERS",
        `Cannot queue buffer ${idx} of ${this.name}: it would be number ${queued} to wait and is ${distance} after the next to load, at most ${queuedBuffersMax} may wait`,
      );
    }
    let offset = 0;
    if (!inPlace) offset = queuedBytes > queuedBytesMax && !needed ? -1 : this.#heap.take(bytes);
    if (offset < 0) {
      return new LimitError(
        "ERR_MULTIFD_LIMIT_DEVICE_BYTES",
        `Cannot queue buffer ${idx} of ${this.name}: ${queuedBytes} bytes would wait, at most ${queuedBytesMax} may`,
      );
    }
    const entry = this.#entry(idx);
    words[entry + STATE] = READING;
    words[entry + OFFSET] = offset;
    words[entry + BYTES] = bytes;
    words[entry + IN_PLACE] = inPlace ? 1 : 0;
    words[QUEUED] = queued;
    this.#floats[QUEUED_BYTES] = queuedBytes;
    if (idx >= words[SEEN] >>> 0) words[SEEN] = idx + 1;
    if (config) words[CONFIG] = idx + 1;
    return undefined;
  }

  #view(idx: number, entry: number): Uint8Array {
    const bytes = this.#words[entry + BYTES];
    const { heap, target } = this.handle;
    return this.#words[entry + IN_PLACE] === 0
      ? new Uint8Array(heap, this.#words[entry + OFFSET] >>> 0, bytes)
      : new Uint8Array(target!.buffer, target!.byteOffset + idx * target!.chunkBytes, bytes);
  }

  #checkIndex(idx: number, config: boolean): void {
    const words = this.#words;
    const next = words[NEXT] >>> 0;
    const inRing = idx - next < this.#ring;
    if (idx < next || (inRing && words[this.#entry(idx) + STATE] !== EMPTY)) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_DUPLICATE",
        `Cannot queue buffer ${idx} of ${this.name}: it has been received already`,
      );
    }
    const last = (words[CONFIG] >>> 0) - 1;
    if (last >= 0 && (config || idx > last)) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_CONFIG",
        `Cannot queue buffer ${idx} of ${this.name}: the config was buffer ${last}, and it is the last one`,
      );
    }
    if (config && idx + 1 < words[SEEN] >>> 0) {
      throw new DeviceError(
        "ERR_MULTIFD_DEVICE_CONFIG",
        `Cannot queue buffer ${idx} of ${this.name}: it is the config and must be the last, ${(words[SEEN] >>> 0) - 1} has been received`,
      );
    }
  }

  #entry(idx: number): number {
    return RING_AT + (idx % this.#ring) * ENTRY_WORDS;
  }

  #signal(): void {
    Atomics.add(this.#words, CHANGES, 1);
    Atomics.notify(this.#words, CHANGES);
  }

  #lock(): void {
    if (this.#session.stopping || !this.#mutex.lock()) throw this.#stopped();
  }

  #stopped(): ChannelError {
    return new ChannelError(
      "ERR_MULTIFD_CHANNEL_STOPPED",
      `Cannot go on with ${this.name}: the session was stopped`,
    );
  }
}
