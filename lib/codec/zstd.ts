/**
 * Method zstd: one frame per channel for the whole migration, flushed once per packet and not ended
 * (wire format, section 7.3), but where the level changes or there is nothing to compress.
 *
 * At the fast levels a packet whose pages cannot be compressed becomes raw blocks, which libzstd never
 * sees and which go to the socket from the pages themselves. The frame ends with them, and the
 * compressor's history with it; two full packets would have displaced that anyway, since the window of
 * these levels holds no more.
 *
 * libzstd copies its input into its own window before it looks at it (that is what its buffered
 * streaming mode does), so a page that changes meanwhile needs no copy of ours.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { NativeCodecError } from "../../ffi/errors.ts";
import { isFastZstdLevel, ZSTD_WINDOW_TOO_LARGE } from "../../ffi/libzstd.ts";
import { LimitError } from "../errors.ts";
import { PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import {
  asCodecError,
  codecError,
  overflowError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";
import type { FrameCompressor, StreamDecompressor } from "./engine.ts";
import { EntropySampler } from "./entropy_sampler.ts";
import { RepeatFinder } from "./repeat_finder.ts";
import {
  BLOCK_BYTES_MAX,
  BLOCK_HEADER_BYTES,
  FRAME_HEADER_BYTES,
  writeFrameHeader,
  writeRawBlockHeader,
} from "./zstd_frame.ts";

/** Behind a packet of raw blocks one page of so many is looked at. */
const RAW_STREAK_STEP = 4;

/** Fewer incompressible bytes than this are not worth the history that leaving them out costs. */
const RAW_BYTES_MIN = 131_072;

/** See the module comment. */
export class ZstdEncoder implements PageEncoder {
  readonly #stream: FrameCompressor;
  readonly #pageSize: number;
  readonly #sampler = new EntropySampler();
  readonly #repeats = new RepeatFinder();
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);
  /** Whether the window, and so what may be lost with the history, is two full packets. */
  #fast: boolean;
  #phase = 0;
  /** Whether the packet before was left raw. */
  #wasRaw = false;
  /** Whether the reader is inside a frame. */
  #open = false;
  #nextLevel: number | undefined;

  /**
   * @param stream Owned by the encoder from now on.
   * @param level The level it was made with.
   * @param pageSize In bytes.
   */
  constructor(stream: FrameCompressor, level: number, pageSize: number) {
    this.#stream = stream;
    this.#fast = isFastZstdLevel(level);
    this.#pageSize = pageSize;
  }

  encode(runs: PageRuns, payload: IovecList): number {
    this.#wasRaw = this.#isIncompressible(runs);
    return this.#wasRaw ? this.#leaveRaw(runs, payload) : this.#compress(runs, payload);
  }

  setLevel(level: number): void {
    this.#nextLevel = level;
    this.#fast = isFastZstdLevel(level);
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }

  #isIncompressible(runs: PageRuns): boolean {
    if (!this.#fast || (this.#open && runs.bytes < RAW_BYTES_MIN)) return false;
    const pageSize = this.#pageSize;
    const step = this.#wasRaw ? RAW_STREAK_STEP * pageSize : pageSize;
    // Another one of four in the next packet: content may have a pattern too.
    this.#phase = (this.#phase + 1) % RAW_STREAK_STEP;
    const first = this.#wasRaw ? this.#phase * pageSize : 0;
    this.#repeats.begin();
    for (let run = 0; run < runs.count; run++) {
      const address = runs.addresses[run];
      const length = runs.lengths[run];
      for (let page = Math.min(first, length - pageSize); page < length; page += step) {
        if (!this.#sampler.isIncompressible(address + page, pageSize)) return false;
        if (this.#repeats.isRepeated(this.#sampler.fingerprint)) return false;
      }
    }
    return true;
  }

  #compress(runs: PageRuns, payload: IovecList): number {
    const stream = this.#stream;
    if (!this.#open) stream.reset(this.#nextLevel);
    stream.setOutput(this.#output.address, PAYLOAD_BYTES_MAX);
    for (let run = 0; run < runs.count; run++) {
      stream.setInput(runs.addresses[run], runs.lengths[run]);
      stream.compress(run === runs.count - 1);
      if (stream.inputLeft > 0) throw overflowError();
    }
    // A level holds for a whole frame, so a frame of another level ends. That must happen here and
    // not at the next packet's start: QEMU asks a packet for a page at a time and gets none from a
    // frame's end. No input is left at this point, since libzstd would read it without a copy.
    const ends = this.#open && this.#nextLevel !== undefined;
    if (ends) stream.finish();
    else this.#nextLevel = undefined;
    this.#open = !ends;
    const bytes = PAYLOAD_BYTES_MAX - stream.outputLeft;
    payload.append(this.#output.address, bytes);
    return bytes;
  }

  /** Raw blocks in the frame that is open or a new one, which ends with them. */
  #leaveRaw(runs: PageRuns, payload: IovecList): number {
    const { u8, address: output } = this.#output;
    const before = payload.bytes;
    let filled = 0;
    if (!this.#open) {
      writeFrameHeader(u8, 0);
      payload.append(output, FRAME_HEADER_BYTES);
      filled = FRAME_HEADER_BYTES;
    }
    this.#open = false;
    let left = runs.bytes;
    let blockLeft = 0;
    for (let run = 0; run < runs.count; run++) {
      const length = runs.lengths[run];
      for (let done = 0; done < length;) {
        if (blockLeft === 0) {
          blockLeft = Math.min(BLOCK_BYTES_MAX, left);
          left -= blockLeft;
          writeRawBlockHeader(u8, filled, blockLeft, left === 0);
          payload.append(output + filled, BLOCK_HEADER_BYTES);
          filled += BLOCK_HEADER_BYTES;
        }
        const bytes = Math.min(blockLeft, length - done);
        payload.append(runs.addresses[run] + done, bytes);
        done += bytes;
        blockLeft -= bytes;
      }
    }
    return payload.bytes - before;
  }
}

/** See the module comment. */
export class ZstdDecoder implements PageDecoder {
  readonly #stream: StreamDecompressor;
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  readonly #spare = new Arena(1);
  readonly #windowBits: number;

  /**
   * @param stream Owned by the decoder from now on.
   * @param windowBits The limit on windows it was made with.
   */
  constructor(stream: StreamDecompressor, windowBits: number) {
    this.#stream = stream;
    this.#windowBits = windowBits;
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    source.receive(this.#input.address, payloadBytes);
    try {
      this.#decompress(runs, payloadBytes);
    } catch (error) {
      if (error instanceof NativeCodecError && error.status === ZSTD_WINDOW_TOO_LARGE) {
        throw new LimitError(
          "ERR_MULTIFD_LIMIT_WINDOW",
          `Cannot decode zstd payload: its window is above ${2 ** this.#windowBits} bytes, the most ` +
            "a channel may have; a lower level, fewer channels or a larger heldBytesMax must be set",
        );
      }
      throw asCodecError("zstd", error);
    }
  }

  #decompress(runs: PageRuns, payloadBytes: number): void {
    const stream = this.#stream;
    stream.setInput(this.#input.address, payloadBytes);
    for (let run = 0; run < runs.count; run++) {
      stream.setOutput(runs.addresses[run], runs.lengths[run]);
      while (stream.outputLeft > 0) {
        const left = stream.inputLeft + stream.outputLeft;
        stream.decompress();
        if (stream.inputLeft + stream.outputLeft === left) {
          throw codecError("zstd", "it ends before its pages are full");
        }
      }
    }
    // Takes what is left of the last block; a byte of output here would be a byte too many.
    stream.setOutput(this.#spare.address, 1);
    stream.decompress();
    if (stream.outputLeft === 0 || stream.inputLeft > 0) {
      throw codecError("zstd", "it holds more than its pages");
    }
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}
