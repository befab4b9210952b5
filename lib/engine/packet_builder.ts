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
import { pageAddress, type TableBlock } from "../memory/block_table.ts";
import { PageRuns } from "../memory/page_runs.ts";
import { IovecList } from "../memory/iovec_list.ts";
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
    const normal = this.#sortZeroPages(block, pages, first, count);
    this.#runs.assign(block, this.#sorted, 0, normal);
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

  /** Copies the page numbers, normal pages first and in order; returns how many are normal. */
  #sortZeroPages(block: TableBlock, pages: Uint32Array, first: number, count: number): number {
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
