/**
 * Pages of a block that lies in a file, read into memory of the sender's own. Mapped pages would end
 * the process when somebody cuts the file off: the kernel knows no milder way to say so.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, isZero, pread, unwrap } from "../../ffi/libc.ts";
import { MultifdError } from "../errors.ts";
import type { FilePlace } from "../storage/opened_file.ts";
import { pageAddress, type PageLayout, type TableBlock } from "../memory/block_table.ts";

/** See the module comment. The pages lie in it one after the other, as if they were a block's. */
export class PageStage implements PageLayout {
  readonly pageSize: number;
  readonly segmentPages: number;
  readonly bases: Float64Array;
  /** The numbers that the pages have here: 0, 1, 2 and so on. */
  readonly places: Uint32Array;
  readonly #memory: Arena;

  constructor(pageSize: number, pagesMax: number) {
    this.pageSize = pageSize;
    this.segmentPages = pagesMax;
    this.#memory = new Arena(pagesMax * pageSize);
    this.bases = new Float64Array([this.#memory.address]);
    this.places = Uint32Array.from({ length: pagesMax }, (_, place) => place);
  }

  /**
   * Reads `count` pages of `block`, numbered in `pages` from `first` on; neighbours at once.
   *
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when the file has become shorter.
   */
  read(block: TableBlock, file: FilePlace, pages: Uint32Array, first: number, count: number): void {
    const { pageSize } = this;
    for (let done = 0; done < count;) {
      const page = pages[first + done];
      let run = 1;
      while (done + run < count && pages[first + done + run] === page + run) run++;
      const address = this.#memory.address + done * pageSize;
      readBlockFile(block.idstr, file, address, page * pageSize, run * pageSize);
      done += run;
    }
  }
}

/** Tells zero pages of any block. */
export class ZeroPageFinder {
  readonly #page = new Uint32Array(1);
  readonly #stage: PageStage;

  constructor(pageSize: number) {
    this.#stage = new PageStage(pageSize, 1);
  }

  /** Whether a page that is inside the block is all zero. */
  isZero(block: TableBlock, page: number): boolean {
    if (block.file === undefined) return isZero(pageAddress(block, page), block.pageSize);
    this.#page[0] = page;
    this.#stage.read(block, block.file, this.#page, 0, 1);
    return isZero(this.#stage.bases[0], block.pageSize);
  }
}

/**
 * Reads bytes of a block that lies in a file, from `offset` on, to `address`.
 *
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when the file has become shorter.
 */
export function readBlockFile(
  idstr: string,
  file: FilePlace,
  address: number,
  offset: number,
  bytes: number,
): void {
  for (let done = 0; done < bytes;) {
    const at = file.offset + offset + done;
    const got = pread(file.fd, address + done, bytes - done, at);
    if (got > 0) done += got;
    if (got > 0 || got === -Errno.EINTR) continue;
    unwrap(`Cannot read RAM block ${idstr}`, got);
    throw new MultifdError(
      "ERR_MULTIFD_IMAGE",
      `Cannot read RAM block ${idstr}: its file ends at byte ${at} now, must keep its length while it is read`,
    );
  }
}
