/**
 * Writes pages as records of a stream, a list of them at a time, straight from where they were read to.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { BLOCK_ID_BYTES_MAX, POSTCOPY_STAGE_BYTES } from "../limits.ts";
import { IovecList } from "../memory/iovec_list.ts";
import type { SendingConnection } from "../net/connection.ts";
import type { PageSource } from "../snapshot/page_source.ts";
import { FOOTER_BYTES, RamFlag, Section } from "../wire/main_stream.ts";

const RECORD_BYTES = 8;
const SECTION_BYTES = 5;
/** Records of a list: two entries each, and some for what is around them. */
const RECORDS_MAX = 256;
const HEADERS_BYTES =
  RECORDS_MAX * (RECORD_BYTES + 1 + BLOCK_ID_BYTES_MAX) +
  SECTION_BYTES +
  RECORD_BYTES +
  FOOTER_BYTES;

/** See the module comment. Used by one thread. */
export class PageSender {
  /** Bytes sent so far. */
  bytes = 0;
  readonly #connection: SendingConnection;
  readonly #pages: PageSource;
  readonly #names: readonly Uint8Array[];
  /** Number of the RAM section; undefined on a connection that has no sections. */
  readonly #section: number | undefined;
  readonly #stage = new Arena(POSTCOPY_STAGE_BYTES);
  readonly #headers = new Arena(HEADERS_BYTES);
  readonly #list = new IovecList();
  #at = 0;
  #marked = 0;
  #staged = 0;
  #records = 0;
  /** Block of the last record, whose name need not be said again. */
  #lastBlock = -1;

  constructor(connection: SendingConnection, pages: PageSource, section: number | undefined) {
    this.#connection = connection;
    this.#pages = pages;
    this.#section = section;
    this.#names = pages.blocks.map(({ idstr }) => new TextEncoder().encode(idstr));
  }

  /** How many pages of a block still fit the list. */
  room(block: number): number {
    const left = POSTCOPY_STAGE_BYTES - this.#staged;
    const pages = Math.floor(left / this.#pages.blocks[block].pageSize);
    return Math.min(pages, RECORDS_MAX - this.#records);
  }

  /**
   * Reads pages `first` up to, not including, `end` and puts them on the list, those that are not in the
   * file as zero pages. They must fit.
   *
   * @throws What reading throws; nothing of them is on the list then.
   */
  add(block: number, first: number, end: number): void {
    const { pageSize, present } = this.#pages.blocks[block];
    const address = this.#stage.address + this.#staged;
    this.#pages.read(block, first, end, address);
    if (this.#records === 0 && this.#section !== undefined) this.#begin(this.#section);
    for (let page = first; page < end; page++) {
      if (!present.has(page)) {
        this.#record(block, page, RamFlag.ZERO);
        this.#headers.u8[this.#at++] = 0;
        continue;
      }
      this.#record(block, page, RamFlag.PAGE);
      this.#flushHeaders();
      this.#list.append(address + (page - first) * pageSize, pageSize);
    }
    this.#staged += (end - first) * pageSize;
  }

  /** Sends the list. */
  send(): void {
    if (this.#records === 0) return;
    if (this.#section !== undefined) this.#endSection(this.#section);
    this.#flushHeaders();
    this.bytes += this.#list.bytes;
    this.#connection.sendList(this.#list);
    this.#list.clear();
    this.#at = this.#marked = this.#staged = this.#records = 0;
    if (this.#section !== undefined) this.#lastBlock = -1;
  }

  /** Says on a connection without sections that nothing follows. */
  end(): void {
    this.#headers.view.setUint32(0, 0);
    this.#headers.view.setUint32(4, RamFlag.EOS);
    this.#connection.send(this.#headers.address, RECORD_BYTES);
    this.bytes += RECORD_BYTES;
  }

  #begin(section: number): void {
    const { view } = this.#headers;
    view.setUint8(0, Section.PART);
    view.setUint32(1, section);
    this.#at = SECTION_BYTES;
  }

  #endSection(section: number): void {
    const { view } = this.#headers;
    view.setUint32(this.#at, 0);
    view.setUint32(this.#at + 4, RamFlag.EOS);
    view.setUint8(this.#at + RECORD_BYTES, Section.FOOTER);
    view.setUint32(this.#at + RECORD_BYTES + 1, section);
    this.#at += RECORD_BYTES + FOOTER_BYTES;
  }

  #record(block: number, page: number, flag: number): void {
    const { view, u8 } = this.#headers;
    const isSame = this.#lastBlock === block;
    const word = page * this.#pages.blocks[block].pageSize + flag + (isSame ? RamFlag.CONTINUE : 0);
    view.setUint32(this.#at, Math.floor(word / 0x1_0000_0000));
    view.setUint32(this.#at + 4, word >>> 0);
    this.#at += RECORD_BYTES;
    this.#records++;
    if (isSame) return;
    const name = this.#names[block];
    u8[this.#at] = name.byteLength;
    u8.set(name, this.#at + 1);
    this.#at += 1 + name.byteLength;
    this.#lastBlock = block;
  }

  #flushHeaders(): void {
    if (this.#at > this.#marked) {
      this.#list.append(this.#headers.address + this.#marked, this.#at - this.#marked);
    }
    this.#marked = this.#at;
  }
}
