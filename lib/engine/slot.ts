/**
 * Slots: the reusable containers in which work travels from a client to a channel. Clients and
 * channels exchange slot numbers, never contents, so every slot has exactly one owner at any time
 * and nothing is allocated during a migration (engine description, section 1.1).
 *
 * @module
 */
import { PACKETS_PER_JOB_MAX } from "../limits.ts";
import { packetPages } from "../wire/packet.ts";

/** What a slot holds. */
export const Payload = { NONE: 0, RAM: 1, DEVICE_STATE: 2, STAGED: 3 } as const;

/*
 * One slot, 32-bit words; all are written by the slot's owner only:
 *   0 payload type   1 block index   2 number of pages   16… page numbers
 *   3 bytes of device-state header   4 bytes of device state
 *   6 address of that header (64 bits)   8 address of the device state (64 bits)
 * or, for a packet that was received and goes on,
 *   4 normal pages, the first of all   8 address of their content, page by page (64 bits)
 */
const TYPE_AT = 0;
const BLOCK_AT = 1;
const PAGES_AT = 2;
const DEVICE_HEADER_BYTES_AT = 3;
const DEVICE_BYTES_AT = 4;
const DEVICE_HEADER_AT = 6;
const DEVICE_AT = 8;
const STAGED_NORMAL_AT = 4;
const STAGED_AT = 8;
const HEADER_WORDS = 16;

/** One slot as its owner sees it. Plain reads and writes: the hand-off orders them. */
export class Slot {
  /** Page numbers; the first `pageCount` are valid. */
  readonly pages: Uint32Array;
  readonly #words: Uint32Array;

  constructor(words: Uint32Array, pagesMax: number) {
    this.#words = words;
    this.pages = words.subarray(HEADER_WORDS, HEADER_WORDS + pagesMax);
  }

  get type(): number {
    return this.#words[TYPE_AT];
  }

  set type(type: number) {
    this.#words[TYPE_AT] = type;
  }

  get blockIndex(): number {
    return this.#words[BLOCK_AT];
  }

  set blockIndex(index: number) {
    this.#words[BLOCK_AT] = index;
  }

  get pageCount(): number {
    return this.#words[PAGES_AT];
  }

  set pageCount(count: number) {
    this.#words[PAGES_AT] = count;
  }

  /** Sets what a device-state payload consists of: packet with inner header, then the state. */
  setDeviceState(header: number, headerBytes: number, state: number, stateBytes: number): void {
    this.#words[DEVICE_HEADER_BYTES_AT] = headerBytes;
    this.#words[DEVICE_BYTES_AT] = stateBytes;
    this.#setAddress(DEVICE_HEADER_AT, header);
    this.#setAddress(DEVICE_AT, state);
  }

  /** Address of the encoded packet and the payload's own header. */
  get deviceHeader(): number {
    return this.#address(DEVICE_HEADER_AT);
  }

  get deviceHeaderBytes(): number {
    return this.#words[DEVICE_HEADER_BYTES_AT];
  }

  /** Address of the device state. */
  get deviceState(): number {
    return this.#address(DEVICE_AT);
  }

  get deviceStateBytes(): number {
    return this.#words[DEVICE_BYTES_AT];
  }

  /** Sets where the content of a received packet's normal pages lies. */
  setStaged(address: number, normalPages: number): void {
    this.#words[STAGED_NORMAL_AT] = normalPages;
    this.#setAddress(STAGED_AT, address);
  }

  /** Address of the content of a received packet. */
  get staged(): number {
    return this.#address(STAGED_AT);
  }

  /** How many of a received packet's pages are normal; the others are zero. */
  get stagedNormalPages(): number {
    return this.#words[STAGED_NORMAL_AT];
  }

  #address(at: number): number {
    return this.#words[at] + this.#words[at + 1] * 0x1_0000_0000;
  }

  #setAddress(at: number, address: number): void {
    this.#words[at] = address >>> 0;
    this.#words[at + 1] = Math.floor(address / 0x1_0000_0000);
  }
}

/** All slots of a session over one shared buffer; each thread makes its own objects. */
export class SlotTable {
  readonly buffer: SharedArrayBuffer;
  readonly slots: readonly Slot[];

  constructor(pageSize: number, source: SharedArrayBuffer | number) {
    const pagesMax = PACKETS_PER_JOB_MAX * packetPages(pageSize);
    const slotWords = Math.ceil((HEADER_WORDS + pagesMax) / 32) * 32;
    this.buffer =
      typeof source === "number" ? new SharedArrayBuffer(source * slotWords * 4) : source;
    const words = new Uint32Array(this.buffer);
    this.slots = Array.from(
      { length: words.length / slotWords },
      (_, index) => new Slot(words.subarray(index * slotWords, (index + 1) * slotWords), pagesMax),
    );
  }
}
