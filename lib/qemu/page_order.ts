/**
 * The order in which a guest has asked for its pages, and the small file that keeps it beside the guest:
 * whoever sends these pages first the next time is asked for hardly any.
 *
 * @module
 */
import { crc32 } from "../../ffi/runtime/runtime.ts";
import { Arena } from "../../ffi/arena.ts";
import { MultifdError } from "../errors.ts";
import { BLOCKS_MAX, ORDER_FILE_BYTES_MAX, ORDER_RUNS_MAX } from "../limits.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { replaceFile } from "../storage/file_replacement.ts";
import { openRegularFile } from "../storage/opened_file.ts";

/*
 * Big-endian:
 *   0  char[8] "MFDORD\r\n"   8  u32 version, 1   12  u32 blocks   16  u32 runs
 *  for each block: u16 bytes of its name, name, u64 pages, u32 bytes of a page
 *  for each run: u32 block, u32 first page, u32 the page behind the last
 *  u32 CRC-32 of all before
 */
const MAGIC = "MFDORD\r\n";
const VERSION = 1;
const HEAD_BYTES = 20;
const CRC_BYTES = 4;

/** Words of a run: its block, its first page, and the page behind its last. */
export const ORDER_RUN_WORDS = 3;

/** A block as far as an order is about it. */
export interface OrderedBlock {
  readonly idstr: string;
  readonly pages: number;
  readonly pageSize: number;
}

/** Pages in the order in which they were asked for, neighbours merged. */
export interface PageOrder {
  readonly blocks: readonly OrderedBlock[];
  /** Runs of `ORDER_RUN_WORDS` words each; blocks by their place in `blocks`. */
  readonly runs: Uint32Array;
}

/** Collects an order while pages are asked for; a page that is asked for again stays where it is. */
export class OrderRecorder {
  #runs = new Uint32Array(1024 * ORDER_RUN_WORDS);
  #words = 0;
  readonly #known: readonly PageBitmap[];

  /** @param runs What goes in front. */
  constructor(blocks: readonly Pick<OrderedBlock, "pages">[], runs: Uint32Array) {
    this.#known = blocks.map(({ pages }) => new PageBitmap(pages));
    for (let at = 0; at < runs.length; at += ORDER_RUN_WORDS) {
      this.add(runs[at], runs[at + 1], runs[at + 2]);
    }
  }

  /** Adds those of some pages that are not there yet; beyond the limit they are left out. */
  add(block: number, first: number, end: number): void {
    const known = this.#known[block];
    for (let from = known.nextClear(first, end); from < end; from = known.nextClear(from, end)) {
      const to = known.nextSet(from, end);
      known.setRange(from, to);
      this.#append(block, from, to);
    }
  }

  /** Adds a run, to the one before if it goes on with that. */
  #append(block: number, first: number, end: number): void {
    const last = this.#words - ORDER_RUN_WORDS;
    if (last >= 0 && this.#runs[last] === block && this.#runs[last + 2] === first) {
      this.#runs[last + 2] = end;
      return;
    }
    if (this.#words >= ORDER_RUNS_MAX * ORDER_RUN_WORDS) return;
    if (this.#words === this.#runs.length) {
      const grown = new Uint32Array(this.#runs.length * 2);
      grown.set(this.#runs);
      this.#runs = grown;
    }
    this.#runs.set([block, first, end], this.#words);
    this.#words += ORDER_RUN_WORDS;
  }

  /** A copy of what there is. */
  get runs(): Uint32Array {
    return this.#runs.slice(0, this.#words);
  }
}

/** Pages in all runs of an order. */
export function orderedPages({ runs }: PageOrder): number {
  let pages = 0;
  for (let at = 0; at < runs.length; at += ORDER_RUN_WORDS) pages += runs[at + 2] - runs[at + 1];
  return pages;
}

/**
 * Writes an order to a file, which appears when it is complete.
 *
 * @throws {SystemError} when that fails.
 */
export function writePageOrder(path: string, order: PageOrder): Promise<void> {
  return replaceFile(path, `Cannot write ${path}`, undefined, (file) =>
    file.write(encodeOrder(order), 0),
  );
}

/**
 * Reads an order from a file.
 *
 * @param blocks Of the guest that it must be of.
 * @returns Its runs, with blocks by their place in `blocks`.
 * @throws {MultifdError} with code `ERR_MULTIFD_ORDER` when it is none, or of another guest.
 * @throws {SystemError} when it cannot be read.
 */
export function readPageOrder(path: string, blocks: readonly OrderedBlock[]): PageOrder {
  using file = openRegularFile(`Cannot open ${path}`, path);
  const bytes = file.length();
  if (bytes > ORDER_FILE_BYTES_MAX) {
    throw orderError(path, `it has ${bytes} bytes, at most ${ORDER_FILE_BYTES_MAX} are allowed`);
  }
  const content = new Arena(Math.max(1, bytes));
  const got = file.read(content.address, bytes, 0);
  return fitOrder(path, decodeOrder(path, content.u8.slice(0, got)), blocks);
}

function fitOrder(path: string, order: PageOrder, blocks: readonly OrderedBlock[]): PageOrder {
  const places = order.blocks.map(({ idstr, pages, pageSize }) => {
    const place = blocks.findIndex((block) => block.idstr === idstr);
    const block = blocks[place] as OrderedBlock | undefined;
    if (block?.pages === pages && block.pageSize === pageSize) return place;
    throw orderError(
      path,
      `it is of another guest: RAM block ${JSON.stringify(idstr)} has ${pages} pages of ${pageSize} there, ` +
        (block === undefined ? "there is none here" : `here ${block.pages} of ${block.pageSize}`),
    );
  });
  const { runs } = order;
  const known = blocks.map(({ pages }) => new PageBitmap(pages));
  for (let at = 0; at < runs.length; at += ORDER_RUN_WORDS) {
    runs[at] = places[runs[at]];
    const [block, first, end] = runs.subarray(at, at + ORDER_RUN_WORDS);
    // Else a small file could name all memory a million times.
    if (known[block].nextSet(first, end) < end) {
      throw orderError(path, `it names a page of ${first} to ${end} of RAM block ${block} twice`);
    }
    known[block].setRange(first, end);
  }
  return { blocks, runs };
}

function encodeOrder({ blocks, runs }: PageOrder): Uint8Array {
  const names = blocks.map(({ idstr }) => new TextEncoder().encode(idstr));
  const namesBytes = names.reduce((sum, name) => sum + 2 + name.byteLength + 8 + 4, 0);
  const bytes = new Uint8Array(HEAD_BYTES + namesBytes + runs.length * 4 + CRC_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, VERSION);
  view.setUint32(12, blocks.length);
  view.setUint32(16, runs.length / ORDER_RUN_WORDS);
  let at = HEAD_BYTES;
  for (const [index, { pages, pageSize }] of blocks.entries()) {
    const name = names[index];
    view.setUint16(at, name.byteLength);
    bytes.set(name, at + 2);
    at += 2 + name.byteLength;
    view.setBigUint64(at, BigInt(pages));
    view.setUint32(at + 8, pageSize);
    at += 12;
  }
  for (const word of runs) {
    view.setUint32(at, word);
    at += 4;
  }
  view.setUint32(at, crc32(bytes.subarray(0, at)));
  return bytes;
}

function decodeOrder(path: string, bytes: Uint8Array): PageOrder {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC.length));
  if (bytes.byteLength < HEAD_BYTES + CRC_BYTES || magic !== MAGIC) {
    throw orderError(path, "it does not begin like one");
  }
  if (view.getUint32(8) !== VERSION) {
    throw orderError(path, `its version is ${view.getUint32(8)}, must be ${VERSION}`);
  }
  const end = bytes.byteLength - CRC_BYTES;
  if (crc32(bytes.subarray(0, end)) !== view.getUint32(end)) {
    throw orderError(path, "it does not have the checksum it must have");
  }
  const [blockCount, runCount] = [view.getUint32(12), view.getUint32(16)];
  if (blockCount > BLOCKS_MAX || runCount > ORDER_RUNS_MAX) {
    throw orderError(path, `it has ${blockCount} RAM blocks and ${runCount} runs, too many`);
  }
  const blocks: OrderedBlock[] = [];
  let at = HEAD_BYTES;
  for (let index = 0; index < blockCount; index++) {
    const nameBytes = at + 2 <= end ? view.getUint16(at) : end;
    if (at + 2 + nameBytes + 12 > end) throw orderError(path, "it ends in a RAM block");
    const idstr = new TextDecoder().decode(bytes.subarray(at + 2, at + 2 + nameBytes));
    at += 2 + nameBytes;
    const pages = Number(view.getBigUint64(at));
    blocks.push({ idstr, pages, pageSize: view.getUint32(at + 8) });
    at += 12;
  }
  if (at + runCount * ORDER_RUN_WORDS * 4 !== end) {
    throw orderError(path, `its ${runCount} runs do not end where it does`);
  }
  const runs = new Uint32Array(runCount * ORDER_RUN_WORDS);
  for (let word = 0; word < runs.length; word++) runs[word] = view.getUint32(at + word * 4);
  for (let word = 0; word < runs.length; word += ORDER_RUN_WORDS) {
    const [block, first, last] = runs.subarray(word, word + ORDER_RUN_WORDS);
    const pages = block < blocks.length ? blocks[block].pages : 0;
    if (!(first < last && last <= pages)) {
      throw orderError(
        path,
        `a run of pages ${first} to ${last} of RAM block ${block}, which has ${pages}`,
      );
    }
  }
  return { blocks, runs };
}

function orderError(path: string, reason: string): MultifdError {
  return new MultifdError("ERR_MULTIFD_ORDER", `Cannot use order of pages ${path}: ${reason}`);
}
