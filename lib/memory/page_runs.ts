/**
 * The pages of one packet as runs of contiguous memory. Neighbouring pages usually are neighbours in
 * memory too, and one long run costs the kernel and the codecs less than many single pages.
 *
 * @module
 */
import { pageAddress, type PageLayout } from "./block_table.ts";

/** See the module comment. One object serves a channel for its whole life. */
export class PageRuns {
  /** Addresses of the runs; the first `count` are valid. */
  readonly addresses: Float64Array;
  /** Lengths of the runs in bytes. */
  readonly lengths: Uint32Array;
  /** Number of runs. */
  count = 0;
  /** Sum of all lengths. */
  bytes = 0;

  constructor(pagesMax: number) {
    this.addresses = new Float64Array(pagesMax);
    this.lengths = new Uint32Array(pagesMax);
  }

  /** Makes one run of contiguous memory. */
  assignRange(address: number, bytes: number): void {
    this.addresses[0] = address;
    this.lengths[0] = bytes;
    this.count = bytes === 0 ? 0 : 1;
    this.bytes = bytes;
  }

  /** Fills the runs with `count` pages of `block`, numbered in `pages` from `first` on. */
  assign(block: PageLayout, pages: Uint32Array, first: number, count: number): void {
    const { addresses, lengths } = this;
    const { pageSize } = block;
    let runs = 0;
    let start = 0;
    let end = 0;
    for (let index = first; index < first + count; index++) {
      const address = pageAddress(block, pages[index]);
      if (address !== end) {
        // Written once per run: adding to the length in memory page by page takes twice as long.
        if (end !== 0) lengths[runs++] = end - start;
        addresses[runs] = address;
        start = address;
      }
      end = address + pageSize;
    }
    if (end !== 0) lengths[runs++] = end - start;
    this.count = runs;
    this.bytes = count * pageSize;
  }
}
