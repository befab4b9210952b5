/**
 * Receiving into a cache: the blocks that channels fill are copies, and guest memory is the twin.
 * Codecs and channels know nothing of it but these two calls around a packet, since a block's
 * addresses in the table are those of its cache (engine description, section 5).
 *
 * While the migration runs, every page is copied on to memory as it comes. Once pages are collected,
 * only the cache changes and they are marked, to be applied all at once.
 *
 * @module
 */
import { clearMemory, copyMemory } from "../../ffi/libc.ts";
import { pageAddress, type TableBlock } from "./block_table.ts";

/**
 * Before pages of `block` arrive and before they count as received: `pages` lists `normal` page
 * numbers, then `zero` page numbers. Does nothing for a block that is no cache.
 */
export function pagesArriving(
  block: TableBlock,
  pages: Uint32Array,
  normal: number,
  zero: number,
): void {
  const { twin } = block;
  if (twin === undefined) return;
  if (twin.collecting) {
    for (let index = 0; index < normal + zero; index++) twin.dirty.set(pages[index]);
    return;
  }
  for (let index = normal; index < normal + zero; index++) {
    // Memory that was zero and that nothing has arrived for needs no page fault.
    if (twin.zeroed && !block.received.has(pages[index])) continue;
    clearMemory(pageAddress(twin, pages[index]), twin.pageSize);
  }
}

/** After the `normal` pages of a packet have been filled. Does nothing for a block that is no cache. */
export function pagesArrived(block: TableBlock, pages: Uint32Array, normal: number): void {
  const { twin } = block;
  if (twin === undefined || twin.collecting) return;
  for (let index = 0; index < normal; index++) {
    const page = pages[index];
    copyMemory(pageAddress(twin, page), pageAddress(block, page), twin.pageSize);
  }
}
