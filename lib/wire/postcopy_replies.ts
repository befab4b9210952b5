/**
 * What a destination says whose memory follows (main channel description, section 12): pages that it
 * wants, how far it is, which pages it has, and how the migration ended.
 *
 * @module
 */
import { ChannelError, StreamError } from "../errors.ts";
import { BLOCK_ID_BYTES_MAX } from "../limits.ts";
import type { ByteReader } from "./byte_reader.ts";
import { ReturnMessage } from "./main_stream.ts";

/** What becomes of each message. */
export interface PostcopyReplyHandler {
  /** Bytes of a block are wanted, before all others. */
  pages(block: number, offset: number, bytes: number): void;
  pong(value: number): void;
  /** The destination tells which pages of a block it has; the bitmap must be read from `reader`. */
  receivedBitmap(block: number, reader: ByteReader): void;
  resumed(): void;
  /** The migration is over, well with 0. */
  shut(value: number): void;
}

const NO_BLOCK = -1;

/** See the module comment. */
export class PostcopyReplies {
  /** When the last message came, as `performance.now()`. */
  arrivedMs = 0;
  readonly #reader: ByteReader;
  readonly #names: readonly string[];
  readonly #handler: PostcopyReplyHandler;
  #block = NO_BLOCK;
  #ended = false;

  /** @param names Of the blocks, by their place. */
  constructor(reader: ByteReader, names: readonly string[], handler: PostcopyReplyHandler) {
    this.#reader = reader;
    this.#names = names;
    this.#handler = handler;
  }

  /**
   * Reads one message and hands it over.
   *
   * @returns False when none begins within `waitMs`, and behind the last one.
   * @throws {ChannelError} at the end of the connection.
   * @throws {StreamError} for what is no message, and for pages of no block.
   */
  read(waitMs: number): boolean {
    const reader = this.#reader;
    if (this.#ended) return false;
    if (reader.buffered === 0) {
      const came = reader.gather(waitMs);
      if (came === "nothing") return false;
      if (came === "end") {
        throw new ChannelError(
          "ERR_MULTIFD_CHANNEL_ENDED",
          "Cannot serve pages: the destination ended the connection before all was in place",
        );
      }
      this.arrivedMs = performance.now();
    }
    const type = reader.u16();
    const bytes = reader.u16();
    switch (type) {
      case ReturnMessage.REQ_PAGES:
        this.#require(bytes === 12, type, bytes);
        this.#pages(reader.u64(), reader.u32());
        break;
      case ReturnMessage.REQ_PAGES_ID: {
        this.#require(bytes >= 14 && bytes <= 13 + BLOCK_ID_BYTES_MAX, type, bytes);
        const offset = reader.u64();
        const length = reader.u32();
        this.#block = this.#named(reader.countedString(), bytes - 13);
        this.#pages(offset, length);
        break;
      }
      case ReturnMessage.PONG:
        this.#require(bytes === 4, type, bytes);
        this.#handler.pong(reader.u32());
        break;
      case ReturnMessage.RECV_BITMAP:
        this.#require(bytes >= 2 && bytes <= 1 + BLOCK_ID_BYTES_MAX, type, bytes);
        this.#handler.receivedBitmap(this.#named(reader.countedString(), bytes - 1), reader);
        break;
      case ReturnMessage.RESUME_ACK:
        this.#require(bytes === 4, type, bytes);
        if (reader.u32() !== 1) throw replyError("the destination does not go on");
        this.#handler.resumed();
        break;
      case ReturnMessage.SHUT:
        this.#require(bytes === 4, type, bytes);
        this.#ended = true;
        this.#handler.shut(reader.u32());
        break;
      default:
        throw replyError(`message ${type} has ${bytes} bytes, must be a known type`);
    }
    return true;
  }

  #pages(offset: number, bytes: number): void {
    if (this.#block === NO_BLOCK) throw replyError("pages of no block are asked for");
    this.#handler.pages(this.#block, offset, bytes);
  }

  #named(idstr: string, bytes: number): number {
    const block = this.#names.indexOf(idstr);
    const name = JSON.stringify(idstr);
    if (block < 0) throw replyError(`it names RAM block ${name}, there is none`);
    if (new TextEncoder().encode(idstr).byteLength !== bytes) {
      throw replyError(`the name ${name} does not have its message's ${bytes} bytes`);
    }
    return block;
  }

  #require(right: boolean, type: number, bytes: number): void {
    if (!right) throw replyError(`message ${type} has ${bytes} bytes`);
  }
}

/** An error about what a destination says. */
export function replyError(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_RETURN_PATH", `Cannot read return path: ${reason}`);
}
