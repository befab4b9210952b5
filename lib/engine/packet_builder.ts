/**
 * Turns a list of pages into a packet ready to be sent: zero pages sorted out, the others encoded,
 * the header filled in, everything in one iovec list. This is the sender's page path; it knows
 * neither threads nor sockets.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { isZero } from "../../ffi/libc.ts";
import type { PageEncoder } from "../codec/codec.ts";
import {
  pageAddress,
  touchPages,
  type PageLayout,
  type TableBlock,
} from "../memory/block_table.ts";
import type { FilePlace } from "../storage/opened_file.ts";
import { PageRuns } from "../memory/page_runs.ts";
import { IovecList } from "../memory/iovec_list.ts";
import { PageStage } from "./page_stage.ts";
import { packetPages, RamPacketEncoder, ramPacketBytes } from "../wire/packet.ts";

/** How packets are built. */
interface PacketFormat {
  readonly pageSize: number;
  /** Value of the method field in the packet's flags. */
  readonly methodFlag: number;
  /** Whether to look for zero pages. */
  readonly detectZeroPages: boolean;
}

/** See the module comment. One object serves a channel for its whole life. */
export class PacketBuilder {
  /** The packet built last; valid until the next one. */
  readonly iovecs = new IovecList();
  /** Most pages of one packet. */
  readonly pagesMax: number;
  /** Normal pages of the packet built last. */
  normalPages = 0;
  /** Zero pages of the packet built last. */
  zeroPages = 0;
  readonly #format: PacketFormat;
  readonly #encoder: PageEncoder;
  readonly #header: Arena;
  readonly #headerBytes: number;
  readonly #packet: RamPacketEncoder;
  readonly #runs: PageRuns;
  readonly #sorted: Uint32Array;
  /** Made with the first block that lies in a file. */
  #stage: PageStage | undefined;

  constructor(format: PacketFormat, encoder: PageEncoder) {
    this.#format = format;
    this.#encoder = encoder;
    this.pagesMax = packetPages(format.pageSize);
    this.#headerBytes = ramPacketBytes(format.pageSize);
    this.#header = new Arena(this.#headerBytes);
    const view = new DataView(this.#header.buffer, 0, this.#headerBytes);
    this.#packet = new RamPacketEncoder(view, format.pageSize);
    this.#runs = new PageRuns(this.pagesMax);
    this.#sorted = new Uint32Array(this.pagesMax);
  }

  /** Address of the header of the packet built last. */
  get headerAddress(): number {
    return this.#header.address;
  }

  /** Builds a packet of pages `pages[first]` up to, not including, `pages[first + count]`. */
  buildPages(
    block: TableBlock,
    pages: Uint32Array,
    first: number,
    count: number,
    packetNumber: number,
  ): void {
    touchPages(block, pages, first, first + count);
    const normal =
      block.file === undefined
        ? this.#takePages(block, pages, first, count)
        : this.#stagePages(block, block.file, pages, first, count);
    this.#begin();
    const payloadBytes = normal === 0 ? 0 : this.#encoder.encode(this.#runs, this.iovecs);
    this.normalPages = normal;
    this.zeroPages = count - normal;
    // Last, because it needs the final counts.
    this.#packet.encodePages(
      block,
      this.#format.methodFlag,
      packetNumber,
      this.#sorted,
      normal,
      count - normal,
      payloadBytes,
    );
  }

  /**
   * Builds a packet of the pages `pages`, the first `normal` of them normal and with their content at
   * `address`, the others, `zero`, known to be zero.
   */
  buildStaged(
    block: TableBlock,
    pages: Uint32Array,
    normal: number,
    zero: number,
    address: number,
    packetNumber: number,
  ): void {
    this.#runs.assignRange(address, normal * this.#format.pageSize);
    this.#begin();
    const payloadBytes = normal === 0 ? 0 : this.#encoder.encode(this.#runs, this.iovecs);
    this.normalPages = normal;
    this.zeroPages = zero;
    const { methodFlag } = this.#format;
    this.#packet.encodePages(block, methodFlag, packetNumber, pages, normal, zero, payloadBytes);
  }

  /** Builds a SYNC packet. */
  buildSync(packetNumber: number): void {
    this.#begin();
    this.normalPages = 0;
    this.zeroPages = 0;
    this.#packet.encodeSync(packetNumber);
  }

  #begin(): void {
    this.iovecs.clear();
    this.iovecs.append(this.#header.address, this.#headerBytes);
  }

  /** Sorts the pages and has their runs where they are; returns how many are normal. */
  #takePages(block: PageLayout, pages: Uint32Array, first: number, count: number): number {
    const normal = this.#sortZeroPages(block, pages, first, count);
    this.#runs.assign(block, this.#sorted, 0, normal);
    return normal;
  }

  /** As `#takePages()`, of pages in a file. */
  #stagePages(
    block: TableBlock,
    file: FilePlace,
    pages: Uint32Array,
    first: number,
    count: number,
  ): number {
    const stage = (this.#stage ??= new PageStage(this.#format.pageSize, this.pagesMax));
    stage.read(block, file, pages, first, count);
    const normal = this.#takePages(stage, stage.places, 0, count);
    const sorted = this.#sorted;
    for (let index = 0; index < count; index++) sorted[index] = pages[first + sorted[index]];
    return normal;
  }

  /** Copies the page numbers, normal pages first and in order; returns how many are normal. */
  #sortZeroPages(block: PageLayout, pages: Uint32Array, first: number, count: number): number {
    const { detectZeroPages, pageSize } = this.#format;
    const sorted = this.#sorted;
    let normal = 0;
    let zero = count;
    for (let index = first; index < first + count; index++) {
      const page = pages[index];
      if (detectZeroPages && isZero(pageAddress(block, page), pageSize)) sorted[--zero] = page;
      else sorted[normal++] = page;
    }
    return normal;
  }
}
