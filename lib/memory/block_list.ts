/**
 * Lists of RAM blocks, as those have them who send or save them.
 *
 * @module
 */
import type { RamBlock } from "./ram_block.ts";

/**
 * Checks a list.
 *
 * @param action What cannot be done with another one, for messages.
 * @returns The page size that all of them have.
 * @throws {RangeError} when it is empty, has an id twice, or blocks of several page sizes.
 */
export function commonPageSize(
  action: string,
  blocks: readonly RamBlock[],
): { readonly pageSize: number } {
  const [first] = blocks;
  if (first === undefined) {
    throw new RangeError(`${action}: there is no RAM block, at least 1 is needed`);
  }
  if (new Set(blocks.map(({ idstr }) => idstr)).size < blocks.length) {
    throw new RangeError(`${action}: two RAM blocks have the same id, ids must be unique`);
  }
  if (blocks.some(({ pageSize }) => pageSize !== first.pageSize)) {
    throw new RangeError(`${action}: RAM blocks have different page sizes, must have one`);
  }
  return { pageSize: first.pageSize };
}

/**
 * Checks pages a caller names.
 *
 * @param action What is to be done with pages, for messages.
 * @throws {RangeError} unless there is such a block and all pages from `first` to `end` are in it.
 */
export function checkPages(
  blocks: readonly Pick<RamBlock, "idstr" | "pages">[],
  blockIndex: number,
  first: number,
  end: number,
  action = "queue",
): void {
  const block = blocks[blockIndex];
  if (block === undefined) {
    throw new RangeError(`Cannot ${action} pages: there is no block with index ${blockIndex}`);
  }
  const whole = Number.isInteger(first) && Number.isInteger(end);
  if (!(whole && first >= 0 && first < end && end <= block.pages)) {
    throw new RangeError(
      `Cannot ${action} pages ${first} to ${end}: RAM block ${block.idstr} has ${block.pages} pages`,
    );
  }
}

/**
 * Index of a block whose pages a caller names, given as it is or by its id.
 *
 * @param action As of {@linkcode checkPages}.
 * @throws {RangeError} unless there is such a block.
 */
export function indexOfBlock(
  blocks: readonly Pick<RamBlock, "idstr">[],
  block: Pick<RamBlock, "idstr"> | string,
  action = "queue",
): number {
  const idstr = typeof block === "string" ? block : block.idstr;
  const index = blocks.findIndex((candidate) => candidate.idstr === idstr);
  if (index < 0) throw new RangeError(`Cannot ${action} pages: there is no RAM block ${idstr}`);
  return index;
}
