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
import { ZstdCompressStream, ZstdDecompressStream } from "../../ffi/libzstd.ts";
import { CodecError } from "../errors.ts";
import { PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { IovecList } from "../net/iovec_list.ts";
import {
  asCodecError,
  codecError,
  type PageDecoder,
  type PageEncoder,
  type PayloadSource,
} from "./codec.ts";

/** See the module comment. */
export class ZstdEncoder implements PageEncoder {
  readonly #stream: ZstdCompressStream;
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);

  /** @param level -7 to 20; QEMU itself knows 0 to 20, its decoder takes them all. */
  constructor(level: number) {
    this.#stream = new ZstdCompressStream(level);
  }

  encode(runs: PageRuns, payload: IovecList): number {
    const stream = this.#stream;
    stream.setOutput(this.#output.address, PAYLOAD_BYTES_MAX);
    for (let run = 0; run < runs.count; run++) {
      stream.setInput(runs.addresses[run], runs.lengths[run]);
      const flush = run === runs.count - 1;
      const heldBack = stream.compress(flush);
      if (stream.inputLeft > 0 || (flush && heldBack > 0)) {
        throw new CodecError(
          "ERR_MULTIFD_CODEC_OVERFLOW",
          `Cannot encode packet: more than ${PAYLOAD_BYTES_MAX} bytes of payload, the most a receiver takes`,
        );
      }
    }
    const bytes = PAYLOAD_BYTES_MAX - stream.outputLeft;
    payload.append(this.#output.address, bytes);
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}

/** See the module comment. */
export class ZstdDecoder implements PageDecoder {
  readonly #stream = new ZstdDecompressStream();
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  readonly #spare = new Arena(1);

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
