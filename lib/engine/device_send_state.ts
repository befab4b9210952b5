/**
 * What producers of device state share: the buffers of all slots and the slots nobody holds.
 *
 * A producer takes a free slot, fills the slot's own buffer in place and exchanges the slot with a
 * channel's, so the buffer travels without a copy and another empty one comes back. Producers are
 * served in the order in which they asked, both for slots and for channels.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { DEVICE_BUFFER_BYTES } from "../limits.ts";
import { FAIR_MUTEX_WORDS, FairMutex } from "../sync/fair_mutex.ts";
import { Semaphore, type WaitResult } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { SendState } from "./send_state.ts";

const FREE_SLOTS = 0; // semaphore: slots nobody holds
const TAKE_MUTEX = 32; // producers queue up here
const BITMAP = 64; // one bit per slot, set = free
if (TAKE_MUTEX + FAIR_MUTEX_WORDS > BITMAP) throw new RangeError("Words must not overlap");

/** Room in front of each buffer for the packet and the payload's own header; a whole page. */
const HEADER_ROOM_BYTES = 4096;
const STRIDE_BYTES = HEADER_ROOM_BYTES + DEVICE_BUFFER_BYTES;

/** The shared buffers, to attach in another thread. */
export interface DeviceSendStateHandle {
  readonly words: SharedArrayBuffer;
  readonly buffers: SharedArrayBuffer;
}

/** See the module comment. Each thread makes its own object over the same buffers. */
export class DeviceSendState {
  readonly handle: DeviceSendStateHandle;
  readonly #address: number;
  readonly #words: Int32Array;
  readonly #control: SessionControl;
  readonly #free: Semaphore;
  readonly #takeMutex: FairMutex;

  /** Makes the state of a session; every slot gets a buffer, the device clients' slots are free. */
  static create(state: SendState, control: SessionControl): DeviceSendState {
    const slots = state.slots.length;
    const made = new DeviceSendState(
      {
        words: new SharedArrayBuffer((BITMAP + Math.ceil(slots / 32)) * 4),
        buffers: new SharedArrayBuffer(slots * STRIDE_BYTES),
      },
      control,
    );
    for (let client = 1; client < state.handle.clients; client++) {
      made.release(state.clientSlot(client));
    }
    return made;
  }

  constructor(handle: DeviceSendStateHandle, control: SessionControl) {
    this.handle = handle;
    this.#control = control;
    this.#address = addressOf(handle.buffers);
    this.#words = new Int32Array(handle.words);
    this.#free = new Semaphore(this.#words, FREE_SLOTS, control);
    this.#takeMutex = new FairMutex(this.#words, TAKE_MUTEX, control);
  }

  /** Address of the header room of a slot, 4096 bytes in front of its buffer. */
  headerAddress(slot: number): number {
    return this.#address + slot * STRIDE_BYTES;
  }

  /** Address of the buffer of a slot, `DEVICE_BUFFER_BYTES` long and page aligned. */
  bufferAddress(slot: number): number {
    return this.headerAddress(slot) + HEADER_ROOM_BYTES;
  }

  /** The header room of a slot. */
  headerView(slot: number): DataView {
    return new DataView(this.handle.buffers, slot * STRIDE_BYTES, HEADER_ROOM_BYTES);
  }

  /** The buffer of a slot. */
  bufferView(slot: number): Uint8Array {
    const at = slot * STRIDE_BYTES + HEADER_ROOM_BYTES;
    return new Uint8Array(this.handle.buffers, at, DEVICE_BUFFER_BYTES);
  }

  /** Takes a free slot, waiting as long as bytes move in the session within `limitMs`; else -1. */
  take(limitMs: number): number {
    if (!this.#takeMutex.lock()) return -1;
    const result: WaitResult = this.#free.takeWhileActive(limitMs, this.#control);
    // The lowest first: the fewer buffers take turns, the less memory is ever touched.
    const slot = result === "taken" ? this.#takeLowest() : -1;
    this.#takeMutex.unlock();
    return slot;
  }

  /** Gives back a slot. */
  release(slot: number): void {
    Atomics.or(this.#words, BITMAP + (slot >>> 5), 1 << (slot & 31));
    this.#free.post();
  }

  #takeLowest(): number {
    // Ends: the semaphore counts set bits, and only the holder of the mutex clears one.
    for (let word = BITMAP; ; word = word + 1 < this.#words.length ? word + 1 : BITMAP) {
      const bits = Atomics.load(this.#words, word);
      if (bits === 0) continue;
      const bit = 31 - Math.clz32(bits & -bits);
      Atomics.and(this.#words, word, ~(1 << bit));
      return (word - BITMAP) * 32 + bit;
    }
  }
}
