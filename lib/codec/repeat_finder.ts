/**
 * Finds out whether one of a packet's pages has come before in it: a compressor makes next to nothing
 * of a page that it has seen, whatever is in it.
 *
 * @module
 */
import { PACKET_PAGES_MAX } from "../limits.ts";

const PLACES = 4 * PACKET_PAGES_MAX; // a power of two, so that probing stays short

/** See the module comment. A hash table that is emptied by counting on. */
export class RepeatFinder {
  readonly #fingerprints = new Uint32Array(PLACES);
  /** For each place the packet that has filled it last. */
  readonly #packets = new Uint32Array(PLACES);
  #packet = 0;

  /** The next packet begins. */
  begin(): void {
    this.#packet = (this.#packet + 1) >>> 0;
  }

  /** Whether `fingerprint` has come in this packet; at most `PACKET_PAGES_MAX` times a packet. */
  isRepeated(fingerprint: number): boolean {
    let place = fingerprint & (PLACES - 1);
    while (this.#packets[place] === this.#packet) {
      if (this.#fingerprints[place] === fingerprint) return true;
      place = (place + 1) & (PLACES - 1);
    }
    this.#packets[place] = this.#packet;
    this.#fingerprints[place] = fingerprint;
    return false;
  }
}
