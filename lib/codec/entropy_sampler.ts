/**
 * Tells pages that cannot be compressed (random, encrypted or compressed content) from a few of
 * their bytes, so that such pages cost next to nothing.
 *
 * Of 64 bytes drawn from random data 56.7 differ on average, fewer than 50 in one page of a
 * thousand; text has about 25 different bytes, machine code about 35. The bytes lie in a few groups,
 * since what costs is the number of cache lines touched: pages with content have not been read
 * before.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";

const GROUPS = 4;
const GROUP_BYTES = 16;
const SAMPLE_BYTES = (GROUPS / 2) * GROUP_BYTES;

/** Different values among all samples from which on a page counts as incompressible. */
const DISTINCT_MIN = 50;

/** The same after half of the samples: most pages with less content are known by then. */
const HALF_DISTINCT_MIN = 26;

/** After so many incompressible pages in a row half of the samples are enough for the next one. */
const STREAK_PAGES = 8;

/** See the module comment. */
export class EntropySampler {
  readonly #sample = new Arena(SAMPLE_BYTES);
  /** For each byte value the number of the page in which it was seen last. */
  readonly #seen = new Uint32Array(256);
  #page = 0;
  #streak = 0;

  /** Whether the `bytes` bytes at `address` look as if no compressor could shorten them. */
  isIncompressible(address: number, bytes: number): boolean {
    this.#page = (this.#page + 1) >>> 0;
    const half = this.#distinct(address, bytes, 0);
    const incompressible =
      half >= HALF_DISTINCT_MIN &&
      (this.#streak >= STREAK_PAGES || half + this.#distinct(address, bytes, 1) >= DISTINCT_MIN);
    this.#streak = incompressible ? this.#streak + 1 : 0;
    return incompressible;
  }

  /** A number that equal pages have in common, of the page looked at last. */
  get fingerprint(): number {
    const { u32 } = this.#sample;
    return (Math.imul(u32[0] ^ u32[5], 0x9e37_79b1) ^ u32[2]) >>> 0;
  }

  /** How many byte values half of the groups, those of even or odd number, add to those seen. */
  #distinct(address: number, bytes: number, odd: 0 | 1): number {
    const seen = this.#seen;
    const page = this.#page;
    const { u8, address: sample } = this.#sample;
    const stride = bytes / GROUPS;
    // From the middle of each group's part: headers at a page's start are more regular than the rest.
    const first = address + odd * stride + stride / 2;
    copyMemory(sample, first, GROUP_BYTES);
    copyMemory(sample + GROUP_BYTES, first + 2 * stride, GROUP_BYTES);
    let distinct = 0;
    for (let index = 0; index < 2 * GROUP_BYTES; index++) {
      const value = u8[index];
      if (seen[value] === page) continue;
      seen[value] = page;
      distinct++;
    }
    return distinct;
  }
}
