/**
 * Reads the records of RAM sections (main channel description, section 6).
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { BLOCKS_MAX } from "../limits.ts";
import { blockIdFault } from "./block_id.ts";
import type { ByteReader } from "./byte_reader.ts";
import { RamFlag, type AnnouncedBlock } from "./main_stream.ts";

/** What a destination does with RAM sections. */
export interface RamHandler {
  /** The block list of the setup section; names are unique, lengths whole pages. */
  ramBlocks(blocks: readonly AnnouncedBlock[]): void;
  /**
   * Reads what a stream of another kind has behind a block's length, such as a mapped-ram header;
   * absent where nothing follows. Name and length are checked.
   */
  blockDetails?(block: AnnouncedBlock): void;
  /** A zero page on the main connection; the offset is inside the block. */
  zeroPage(idstr: string, offset: number): void;
  /**
   * A page of a stream without multifd; its content must be read from the stream. Absent where such
   * pages are an error.
   */
  page?(idstr: string, offset: number): void;
  /** A sync marker: all channels stand at the same point. */
  syncMarker(): void;
  /** The end of a section, which in per-section mode is the sync point. */
  ramSectionEnd(kind: "start" | "part" | "end"): void;
}

/** See the module comment. */
export class RamSectionReader {
  readonly #reader: ByteReader;
  readonly #handler: RamHandler;
  readonly #pageSize: number;
  readonly #blocks = new Map<string, number>();
  /** Block of the last page record. QEMU leaves the name out across the end of a section, too. */
  #lastBlock: string | undefined;

  constructor(reader: ByteReader, handler: RamHandler, pageSize: number) {
    this.#reader = reader;
    this.#handler = handler;
    this.#pageSize = pageSize;
  }

  /** Reads one section's records up to and including the end record. */
  read(kind: "start" | "part" | "end"): void {
    for (;;) {
      this.#reader.awaitNext(); // pages on the channels may take long between two records here
      const record = this.#reader.u64();
      // Not `&`: the record has more than 32 bits.
      const flags = record % this.#pageSize;
      const offset = record - flags;
      switch (flags & ~RamFlag.CONTINUE) {
        case RamFlag.EOS:
          if (this.#blocks.size === 0) throw blockError("the setup section has none");
          this.#handler.ramSectionEnd(kind);
          return;
        case RamFlag.MULTIFD_FLUSH:
          this.#handler.syncMarker();
          break;
        case RamFlag.MEM_SIZE:
          if (kind !== "start") throw recordError(flags, "a block list outside the setup section");
          this.#blockList(offset);
          break;
        case RamFlag.ZERO:
          this.#zeroPage(flags, offset);
          break;
        case RamFlag.PAGE:
          if (this.#handler.page === undefined) throw recordError(flags, "not used with multifd");
          this.#handler.page(this.#pageBlock(flags, offset), offset);
          break;
        default:
          throw recordError(flags, "not used with multifd");
      }
    }
  }

  #blockList(total: number): void {
    const reader = this.#reader;
    // QEMU lists every block it would migrate, and without one there is nothing to receive.
    if (total === 0) throw blockError("it is empty, must name at least 1 block");
    // A second list would be allocated as well, past the limit that the first was held to.
    if (this.#blocks.size > 0) throw blockError("it is the second one");
    const blocks: AnnouncedBlock[] = [];
    for (let left = total; left > 0;) {
      if (blocks.length >= BLOCKS_MAX) {
        throw blockError(`more than ${BLOCKS_MAX} blocks, the most allowed`);
      }
      const idstr = reader.countedString();
      const bytes = reader.u64();
      const name = JSON.stringify(idstr);
      const fault = blockIdFault(idstr);
      if (fault !== undefined) throw blockError(`block ${name}: its id ${fault}`);
      if (this.#blocks.has(idstr)) throw blockError(`block ${name} comes twice, must be once`);
      if (bytes === 0 || bytes % this.#pageSize !== 0 || bytes > left) {
        throw blockError(
          `block ${name} has ${bytes} bytes of ${left} left, must be whole pages of ${this.#pageSize}`,
        );
      }
      this.#blocks.set(idstr, bytes);
      blocks.push({ idstr, bytes });
      this.#handler.blockDetails?.({ idstr, bytes });
      left -= bytes;
    }
    this.#handler.ramBlocks(blocks);
  }

  #zeroPage(flags: number, offset: number): void {
    const idstr = this.#pageBlock(flags, offset);
    const fill = this.#reader.u8();
    if (fill !== 0) throw recordError(flags, `a zero page filled with ${fill}`);
    this.#handler.zeroPage(idstr, offset);
  }

  /** Block of a page record, with the offset checked. */
  #pageBlock(flags: number, offset: number): string {
    const named = (flags & RamFlag.CONTINUE) === 0;
    const idstr = named ? this.#reader.countedString() : this.#lastBlock;
    const bytes = idstr === undefined ? undefined : this.#blocks.get(idstr);
    if (idstr === undefined || bytes === undefined) {
      throw recordError(flags, `it names block ${JSON.stringify(idstr ?? null)}, there is none`);
    }
    if (offset >= bytes) {
      throw recordError(flags, `offset ${offset} is outside block ${idstr} of ${bytes} bytes`);
    }
    this.#lastBlock = idstr;
    return idstr;
  }
}

function recordError(flags: number, reason: string): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_RECORD",
    `Cannot read RAM record with flags 0x${flags.toString(16)}: ${reason}`,
  );
}

function blockError(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_BLOCKS", `Cannot read block list: ${reason}`);
}
