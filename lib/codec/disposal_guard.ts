/**
 * Codecs that refuse to go on once they are disposed. Their native state is gone then, and what still
 * is in its memory would make a payload of nonsense, or a crash. The check is made once a packet.
 *
 * @module
 */
import { disposedError } from "../errors.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { PageDecoder, PageEncoder, PayloadSource } from "./codec.ts";

/** An encoder in front of `encoder`, which it owns. */
export class GuardedEncoder implements PageEncoder {
  /** Only there when the encoder has levels. */
  readonly setLevel?: (level: number) => void;
  readonly #what: string;
  #encoder: PageEncoder | undefined;

  /** @param method Name of the method, for the message. */
  constructor(method: string, encoder: PageEncoder) {
    this.#what = `${method} encoder`;
    this.#encoder = encoder;
    if (encoder.setLevel !== undefined) {
      this.setLevel = (level) => this.#open().setLevel?.(level);
    }
  }

  encode(runs: PageRuns, payload: IovecList): number {
    return this.#open().encode(runs, payload);
  }

  [Symbol.dispose](): void {
    this.#encoder?.[Symbol.dispose]();
    this.#encoder = undefined;
  }

  #open(): PageEncoder {
    if (this.#encoder === undefined) throw disposedError(this.#what);
    return this.#encoder;
  }
}

/** A decoder in front of `decoder`, which it owns. */
export class GuardedDecoder implements PageDecoder {
  readonly #what: string;
  #decoder: PageDecoder | undefined;

  /** @param method Name of the method, for the message. */
  constructor(method: string, decoder: PageDecoder) {
    this.#what = `${method} decoder`;
    this.#decoder = decoder;
  }

  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void {
    if (this.#decoder === undefined) throw disposedError(this.#what);
    this.#decoder.decode(runs, payloadBytes, source);
  }

  [Symbol.dispose](): void {
    this.#decoder?.[Symbol.dispose]();
    this.#decoder = undefined;
  }
}
