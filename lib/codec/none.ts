/**
 * Method none: pages travel as they are, from guest memory to the socket and from the socket to
 * guest memory, and no user-space copy exists on either side (wire format, section 7.1).
 *
 * @module
 */
import type { IovecList } from "../memory/iovec_list.ts";
import type { PageRuns } from "../memory/page_runs.ts";
import type { PageDecoder, PageEncoder, PayloadSource } from "./codec.ts";

/** See the module comment. */
export class RawEncoder implements PageEncoder {
  encode(runs: PageRuns, payload: IovecList): number {
    payload.appendRuns(runs);
    return runs.bytes;
  }

  [Symbol.dispose](): void {}
}

/** See the module comment. The packet decoder has checked that the lengths agree. */
export class RawDecoder implements PageDecoder {
  decode(runs: PageRuns, _payloadBytes: number, source: PayloadSource): void {
    source.receiveRuns(runs);
  }

  [Symbol.dispose](): void {}
}
