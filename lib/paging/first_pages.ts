/**
 * Pages that are to be there before all others, such as those that a guest has asked for first the last
 * time.
 *
 * @module
 */
import { FILE_JOB_BYTES } from "../limits.ts";

/** Pages in the order in which they are to come in; `readPageOrder()` gives one. */
export interface FirstPages {
  readonly blocks: readonly {
    readonly idstr: string;
    readonly pages: number;
    readonly pageSize: number;
  }[];
  /** Three words for each run: its block by its place in `blocks`, first page, the page behind the last. */
  readonly runs: Uint32Array;
}

/** Words of a run. */
export const RUN_WORDS = 3;

/**
 * The runs of an order for blocks that are attached, in pieces that are read at once; blocks that are
 * not among them are left out.
 *
 * @throws {RangeError} when the order is of other blocks than these.
 */
export function firstPagesOf(
  order: FirstPages,
  attached: readonly {
    readonly idstr: string;
    readonly bytes: number;
    readonly pageSize: number;
  }[],
  action: string,
): Uint32Array {
  const places = order.blocks.map(({ idstr, pages, pageSize }) => {
    const place = attached.findIndex((block) => block.idstr === idstr);
    const block = attached[place] as (typeof attached)[number] | undefined;
    if (block === undefined || (block.bytes === pages * pageSize && block.pageSize === pageSize)) {
      return place;
    }
    throw new RangeError(
      `${action}: the order is of ${pages} pages of ${pageSize} bytes, RAM block ${idstr} has ${block.bytes} bytes in pages of ${block.pageSize}`,
    );
  });
  const pieces: number[] = [];
  const unnamed = order.blocks.map(({ pages }) => pages);
  for (let at = 0; at + RUN_WORDS <= order.runs.length; at += RUN_WORDS) {
    const [block, first, end] = order.runs.subarray(at, at + RUN_WORDS);
    const { pages, pageSize } = order.blocks[block] ?? { pages: 0, pageSize: 1 };
    if (!(first < end && end <= pages)) {
      throw new RangeError(`${action}: the order names pages ${first} to ${end} of ${pages}`);
    }
    unnamed[block] -= end - first;
    if (unnamed[block] < 0) {
      throw new RangeError(
        `${action}: the order names more than the ${pages} pages of a RAM block`,
      );
    }
    const piece = FILE_JOB_BYTES / pageSize;
    for (let start = first; places[block] >= 0 && start < end; start += piece) {
      pieces.push(places[block], start, Math.min(start + piece, end));
    }
  }
  return Uint32Array.from(pieces);
}
