/**
 * Memory for buffers of any length in one SharedArrayBuffer, by the buddy method: blocks are powers
 * of two, split in halves on demand and joined again when both halves are free. Which block is
 * given out next is the one freed last, so that its pages are still there; pages that were never
 * used cost nothing.
 *
 * The caller serialises all calls, from whatever thread.
 *
 * @module
 */
import { allocateShared } from "../../ffi/arena.ts";

/** Smallest block in bytes; thousands of tiny buffers must not take a page each. */
const BLOCK_BYTES_MIN = 512;
const ORDER_MAX = 15;

/** Largest block in bytes. */
export const HEAP_BLOCK_BYTES_MAX: number = BLOCK_BYTES_MIN << ORDER_MAX;
if (HEAP_BLOCK_BYTES_MAX !== 16 * 1_048_576) throw new RangeError("Largest block must be 16 MiB");

/*
 * Layout: u32 bytes in use as never-split top blocks, then one free-list head for each order
 * (offset / BLOCK_BYTES_MIN + 1, 0 = empty), padded to 128 bytes; then a byte per smallest block:
 * order + 1 of the block that begins there, with FREE if it is free; then, aligned, the blocks. A
 * free block holds its neighbours in the list in its own first two words.
 */
const USED_AT = 0;
const LISTS_AT = 1;
const STATES_AT_BYTES = 128;
const FREE = 0x80;
const PREVIOUS = 0;
const NEXT = 1;

/** See the module comment. Each thread makes its own object over the same buffer. */
export class BuddyHeap {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Uint32Array;
  readonly #states: Uint8Array;
  readonly #start: number;
  readonly #bytes: number;

  /**
   * @param source The buffer to attach to, or how many bytes of blocks a new heap has; rounded up to
   * whole top blocks.
   */
  constructor(source: SharedArrayBuffer | number) {
    if (typeof source === "number") {
      const tops = Math.ceil(source / HEAP_BLOCK_BYTES_MAX);
      this.buffer = allocateShared(startOf(tops) + tops * HEAP_BLOCK_BYTES_MAX, "a device's queue");
    } else this.buffer = source;
    const tops = Math.floor(this.buffer.byteLength / (HEAP_BLOCK_BYTES_MAX + stateBytes(1)));
    this.#start = startOf(tops);
    this.#bytes = tops * HEAP_BLOCK_BYTES_MAX;
    this.#words = new Uint32Array(this.buffer);
    this.#states = new Uint8Array(this.buffer, STATES_AT_BYTES, stateBytes(tops));
  }

  /** Takes `bytes` bytes; the byte offset in the buffer, or -1 when there is no block left. */
  take(bytes: number): number {
    const order = orderOf(bytes);
    let found = order;
    while (found <= ORDER_MAX && this.#words[LISTS_AT + found] === 0) found++;
    let block: number;
    if (found <= ORDER_MAX) {
      block = this.#words[LISTS_AT + found] - 1;
      this.#unlink(block, found);
    } else {
      found = ORDER_MAX;
      const used = this.#words[USED_AT];
      if (used + HEAP_BLOCK_BYTES_MAX > this.#bytes) return -1;
      this.#words[USED_AT] = used + HEAP_BLOCK_BYTES_MAX;
      block = used / BLOCK_BYTES_MIN;
    }
    while (found > order) {
      found--;
      this.#link(block + (1 << found), found);
    }
    this.#states[block] = order + 1;
    return this.#start + block * BLOCK_BYTES_MIN;
  }

  /** Gives back what `take()` returned. */
  release(offset: number): void {
    let block = (offset - this.#start) / BLOCK_BYTES_MIN;
    let order = this.#states[block] - 1;
    this.#states[block] = 0;
    while (order < ORDER_MAX) {
      const buddy = block ^ (1 << order);
      if (this.#states[buddy] !== (FREE | (order + 1))) break;
      this.#unlink(buddy, order);
      block = Math.min(block, buddy);
      order++;
    }
    this.#link(block, order);
  }

  #link(block: number, order: number): void {
    const head = this.#words[LISTS_AT + order];
    this.#setLink(block, PREVIOUS, 0);
    this.#setLink(block, NEXT, head);
    if (head !== 0) this.#setLink(head - 1, PREVIOUS, block + 1);
    this.#words[LISTS_AT + order] = block + 1;
    this.#states[block] = FREE | (order + 1);
  }

  #unlink(block: number, order: number): void {
    const previous = this.#linkOf(block, PREVIOUS);
    const next = this.#linkOf(block, NEXT);
    if (previous === 0) this.#words[LISTS_AT + order] = next;
    else this.#setLink(previous - 1, NEXT, next);
    if (next !== 0) this.#setLink(next - 1, PREVIOUS, previous);
    this.#states[block] = 0;
  }

  #linkOf(block: number, which: number): number {
    return this.#words[(this.#start + block * BLOCK_BYTES_MIN) / 4 + which];
  }

  #setLink(block: number, which: number, value: number): void {
    this.#words[(this.#start + block * BLOCK_BYTES_MIN) / 4 + which] = value;
  }
}

function orderOf(bytes: number): number {
  return Math.max(0, Math.ceil(Math.log2(bytes / BLOCK_BYTES_MIN)));
}

function stateBytes(tops: number): number {
  return (tops * HEAP_BLOCK_BYTES_MAX) / BLOCK_BYTES_MIN;
}

function startOf(tops: number): number {
  // Page aligned, since large buffers are read from and written to files.
  return Math.ceil((STATES_AT_BYTES + stateBytes(tops)) / 4096) * 4096;
}
