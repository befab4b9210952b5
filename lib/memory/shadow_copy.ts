/**
 * Finds changed pages by comparing memory with a copy of it. It costs as much memory again, and in
 * exchange it never misses a change, which a short hash could.
 *
 * @module
 */
import { copyMemory, isEqual } from "../../ffi/libc.ts";
import type { PageBitmap } from "./page_bitmap.ts";
import { RamBlock } from "./ram_block.ts";

/** See the module comment. */
export class ShadowCopy {
  readonly #block: RamBlock;
  readonly #copy: RamBlock;

  /**
   * Copies the block as it is now. Pages that change after they were copied differ at the next scan,
   * so whatever is sent after this call is at least as new as the copy.
   */
  constructor(block: RamBlock) {
    this.#block = block;
    this.#copy = RamBlock.allocate(block.idstr, block.bytes, { pageSize: block.pageSize });
    this.#eachPage((_page, from, to) => {
      copyMemory(to, from, block.pageSize);
    });
  }

  /** Sets the bit of every page that changed since the last look, and takes its new content. */
  scan(changed: PageBitmap): void {
    const { pageSize } = this.#block;
    this.#eachPage((page, from, to) => {
      if (isEqual(from, to, pageSize)) return;
      // Copied before it is sent: a change in between shows up in the next scan.
      copyMemory(to, from, pageSize);
      changed.set(page);
    });
  }

  #eachPage(visit: (page: number, from: number, to: number) => void): void {
    const { pageSize, pages } = this.#block;
    for (let page = 0; page < pages; page++) {
      const offset = page * pageSize;
      visit(page, this.#block.addressAt(offset), this.#copy.addressAt(offset));
    }
  }
}
