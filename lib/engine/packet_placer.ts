/**
 * Reads the header of a packet, clears its zero pages, marks what has arrived, and lists where its
 * normal pages go. This is the receiver's page path; it knows neither threads nor sockets.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { clearMemory } from "../../ffi/libc.ts";
import { pageAddress, touchPages, type TableBlock } from "../memory/block_table.ts";
import { pagesArrived, pagesArriving } from "../memory/page_cache.ts";
import { PageRuns } from "../memory/page_runs.ts";
import {
  packetPages,
  RamPacketDecoder,
  ramPacketBytes,
  type PacketExpectation,
} from "../wire/packet.ts";

/** See the module comment. One object serves a channel for its whole life. */
export class PacketPlacer {
  /** Where headers are received. */
  readonly header: Arena;
  /** The same memory, for looking at fields. */
  readonly headerView: DataView;
  /** Length of a header in bytes. */
  readonly headerBytes: number;
  /** Fields of the header decoded last. */
  readonly packet: RamPacketDecoder;
  /** Where the normal pages of that packet go. */
  readonly runs: PageRuns;

  constructor(expected: PacketExpectation) {
    this.headerBytes = ramPacketBytes(expected.pageSize);
    this.header = new Arena(this.headerBytes);
    this.headerView = new DataView(this.header.buffer, 0, this.headerBytes);
    this.packet = new RamPacketDecoder(this.headerView, expected);
    this.runs = new PageRuns(packetPages(expected.pageSize));
  }

  /**
   * Decodes the header and does what needs no payload. Returns whether there are pages.
   *
   * @throws {PacketError} before anything is touched when the header is wrong in any way.
   */
  place(blocks: readonly TableBlock[]): boolean {
    const { packet } = this;
    packet.decode(blocks);
    const { normalPages, zeroPages, pages } = packet;
    if (normalPages + zeroPages === 0) return false;
    const block = blocks[packet.blockIndex];
    pagesArriving(block, pages, normalPages, zeroPages);
    for (let index = normalPages; index < normalPages + zeroPages; index++) {
      this.#placeZeroPage(block, pages[index]);
    }
    // Also before the content is read: the mark orders nothing, the sync point does.
    for (let index = 0; index < normalPages; index++) block.received.set(pages[index]);
    touchPages(block, pages, 0, normalPages);
    this.runs.assign(block, pages, 0, normalPages);
    return true;
  }

  /** Does what is left when the normal pages of the packet have been filled. */
  placed(blocks: readonly TableBlock[]): void {
    const { blockIndex, normalPages, pages } = this.packet;
    pagesArrived(blocks[blockIndex], pages, normalPages);
  }

  /** The pages listed by `place()` are all there; called before the next header is looked at. */
  delivered(): void {
    // In place is where they stay.
  }

  /** A first zero page of zeroed memory is only marked: touching it would cost a page fault. */
  #placeZeroPage(block: TableBlock, page: number): void {
    const first = block.received.set(page);
    if (first && block.zeroed) return;
    clearMemory(pageAddress(block, page), block.pageSize);
  }
}
