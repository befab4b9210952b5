/**
 * A key-value table in shared memory whose content can be proven: every entry has a checksum of its
 * own, and the writer keeps one of all entries that it brings up to date with each change. A mixture
 * of two states fails one or the other.
 *
 * @module
 */

/** Entry: key, value, number of the change that wrote it, checksum of the three; 32 bits each. */
const ENTRY_WORDS = 4;
const ENTRY_BYTES = ENTRY_WORDS * 4;

/** What a table holds, in three numbers: equal seals mean equal tables. */
export interface TableSeal {
  /** Changes made so far. */
  readonly changes: number;
  /** Two sums over the checksums of all entries. */
  readonly sums: readonly [number, number];
}

/** Bytes of an encoded seal. */
const SEAL_BYTES = 12;

/** See the module comment. Written by one thread. */
export class KeyValueTable {
  readonly #words: Uint32Array;
  readonly #entries: number;
  #changes = 0;
  #sumA = 0;
  #sumB = 0;

  constructor(memory: Uint8Array, seal?: TableSeal) {
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
    this.#entries = Math.floor(memory.byteLength / ENTRY_BYTES);
    if (seal === undefined) return;
    this.#changes = seal.changes;
    [this.#sumA, this.#sumB] = seal.sums;
  }

  /** Stores a value; a key that falls on another key's entry replaces it, as in a cache. */
  put(key: number, value: number): void {
    const words = this.#words;
    const at = (mix(key, 1) % this.#entries) * ENTRY_WORDS;
    this.#take(words[at + 3]!, -1);
    words[at] = key;
    words[at + 1] = value;
    words[at + 2] = ++this.#changes;
    words[at + 3] = checksum(key, value, this.#changes);
    this.#take(words[at + 3]!, 1);
  }

  /** What the table holds now, from the writer's running sums. */
  get seal(): TableSeal {
    return { changes: this.#changes, sums: [this.#sumA, this.#sumB] };
  }

  /** Works the seal out from the entries alone; undefined when one of them is not as it was written. */
  static inspect(memory: Uint8Array): TableSeal | undefined {
    const table = new KeyValueTable(memory);
    const words = table.#words;
    for (let at = 0; at < table.#entries * ENTRY_WORDS; at += ENTRY_WORDS) {
      const change = words[at + 2]!;
      if (change === 0) continue;
      if (words[at + 3] !== checksum(words[at]!, words[at + 1]!, change)) return undefined;
      table.#changes = Math.max(table.#changes, change);
      table.#take(words[at + 3]!, 1);
    }
    return table.seal;
  }

  #take(sum: number, sign: 1 | -1): void {
    if (sum === 0) return; // an entry that was never written
    this.#sumA = (this.#sumA + sign * mix(sum, 2)) >>> 0;
    this.#sumB = (this.#sumB + sign * mix(sum, 3)) >>> 0;
  }
}

/** A seal as the device state of a checkpoint. */
export function encodeSeal({ changes, sums }: TableSeal): Uint8Array {
  const bytes = new Uint8Array(SEAL_BYTES);
  const view = new DataView(bytes.buffer);
  [changes, ...sums].forEach((word, index) => view.setUint32(index * 4, word));
  return bytes;
}

/** The seal in a device state. */
export function decodeSeal(bytes: Uint8Array): TableSeal {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SEAL_BYTES);
  return { changes: view.getUint32(0), sums: [view.getUint32(4), view.getUint32(8)] };
}

/** Never 0, which stands for an entry that was never written. */
function checksum(key: number, value: number, change: number): number {
  return (mix(key ^ mix(value, 4) ^ mix(change, 5), 6) | 1) >>> 0;
}

function mix(value: number, seed: number): number {
  let mixed = Math.imul(value ^ Math.imul(seed, 0x9e37_79b1), 0x85eb_ca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}
