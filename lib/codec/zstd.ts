/**
 * Method zstd: one frame per channel for the whole migration, flushed once per packet and never
 * ended (wire format, section 7.3).
 *
 * libzstd copies its input into its own window before it looks at it (that is what its buffered
 * streaming mode does), so a page that changes meanwhile needs no copy of ours.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../net/iovec_list.ts";
import {
  asCodecError,
  codecError,
  overflowError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";
import type { FrameCompressor, StreamDecompressor } from "./engine.ts";

/** See the module comment. */
export class ZstdEncoder implements PageEncoder {
  readonly #stream: FrameCompressor;
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);
  #nextLevel: number | undefined;

  /** @param stream Owned by the encoder from now on. */
  constructor(stream: FrameCompressor) {
    this.#stream = stream;
  }

  encode(runs: PageRuns, payload: IovecList): number {
    const stream = this.#stream;
    stream.setOutput(this.#output.address, PAYLOAD_BYTES_MAX);
    for (let run = 0; run < runs.count; run++) {
      stream.setInput(runs.addresses[run], runs.lengths[run]);
      stream.compress(run === runs.count - 1);
      if (stream.inputLeft > 0) throw overflowError();
    }
    if (this.#nextLevel !== undefined) this.#changeLevel(this.#nextLevel);
    const bytes = PAYLOAD_BYTES_MAX - stream.outputLeft;
    payload.append(this.#output.address, bytes);
    return bytes;
  }

  setLevel(level: number): void {
    this.#nextLevel = level;
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }

  /**
   * A level holds for a whole frame, so this packet's frame ends. That must happen here and not at
   * the next packet's start: QEMU asks a packet for a page at a time and gets none from a frame's end.
   * No input is left at this point, since libzstd would read the last of it without a copy.
   */
  #changeLevel(level: number): void {
    this.#nextLevel = undefined;
    this.#stream.finish();
    this.#stream.reset(level);
  }
}

/** See the module comment. */
export class ZstdDecoder implements PageDecoder {
  readonly #stream: StreamDecompressor;
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  readonly #spare = new Arena(1);

  /** @param stream Owned by the decoder from now on. */
  constructor(stream: StreamDecompressor) {
    this.#stream = stream;
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    source.receive(this.#input.address, payloadBytes);
    try {
      this.#decompress(runs, payloadBytes);
    } catch (error) {
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
