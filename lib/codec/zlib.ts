/**
 * Method zlib: one zlib stream per channel for the whole migration, sync-flushed once per packet and
 * never finished (wire format, section 7.2).
 *
 * deflate may look at its input more than once, so a page that changes meanwhile could tear the
 * stream; the encoder works on a private copy, as QEMU does. The copy costs less than 1 % of deflate.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory } from "../../ffi/libc.ts";
import { DeflateStream, InflateStream } from "../../ffi/libz.ts";
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

/** Bytes copied at a time: large enough to make few calls, small enough to stay in the L2 cache. */
const COPY_BYTES = 65_536;

/** See the module comment. */
export class ZlibEncoder implements PageEncoder {
  readonly #stream: DeflateStream;
  readonly #output = new Arena(PAYLOAD_BYTES_MAX);
  readonly #copy = new Arena(COPY_BYTES);

  /** @param level 0 to 9. */
  constructor(level: number) {
    this.#stream = new DeflateStream(level);
  }

  encode(runs: PageRuns, payload: IovecList): number {
    const stream = this.#stream;
    stream.setOutput(this.#output.address, PAYLOAD_BYTES_MAX);
    for (let run = 0; run < runs.count; run++) {
      const length = runs.lengths[run];
      for (let done = 0; done < length; done += COPY_BYTES) {
        const bytes = Math.min(COPY_BYTES, length - done);
        copyMemory(this.#copy.address, runs.addresses[run] + done, bytes);
        stream.setInput(this.#copy.address, bytes);
        stream.deflate(run === runs.count - 1 && done + bytes === length);
        if (stream.inputLeft > 0 || stream.outputLeft === 0) throw overflow();
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
export class ZlibDecoder implements PageDecoder {
  readonly #stream = new InflateStream();
  readonly #input = new Arena(PAYLOAD_BYTES_MAX);
  readonly #spare = new Arena(1);

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    source.receive(this.#input.address, payloadBytes);
    try {
      this.#inflate(runs, payloadBytes);
    } catch (error) {
      throw asCodecError("zlib", error);
    }
  }

  #inflate(runs: PageRuns, payloadBytes: number): void {
    const stream = this.#stream;
    stream.setInput(this.#input.address, payloadBytes);
    for (let run = 0; run < runs.count; run++) {
      stream.setOutput(runs.addresses[run], runs.lengths[run]);
      stream.inflate();
      if (stream.outputLeft > 0) throw codecError("zlib", "it ends before its pages are full");
    }
    // The flush marker is still unread; a byte of output here would be a byte too many.
    stream.setOutput(this.#spare.address, 1);
    stream.inflate();
    if (stream.outputLeft === 0 || stream.inputLeft > 0) {
      throw codecError("zlib", "it holds more than its pages");
    }
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}

function overflow(): CodecError {
  return new CodecError(
    "ERR_MULTIFD_CODEC_OVERFLOW",
    `Cannot encode packet: more than ${PAYLOAD_BYTES_MAX} bytes of payload, the most a receiver takes`,
  );
}
