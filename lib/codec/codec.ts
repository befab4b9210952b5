/**
 * The contract between a channel and a codec. One encoder or decoder serves one channel on that
 * channel's thread for a whole migration and may keep state between packets; it is never shared.
 *
 * @module
 */
import { NativeCodecError } from "../../ffi/errors.ts";
import { CodecError } from "../errors.ts";
import { PAYLOAD_BYTES_MAX } from "../limits.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import type { PageRuns } from "../memory/page_runs.ts";

/** Turns the normal pages of a packet into its payload. */
export interface PageEncoder extends Disposable {
  /**
   * Appends the payload of `runs` to `payload` and returns its length in bytes, at most
   * `PAYLOAD_BYTES_MAX`. What is appended must stay valid until the next call. Other threads may
   * write to the pages meanwhile: whatever they do, the payload must decode.
   */
  encode(runs: PageRuns, payload: IovecList): number;
  /**
   * Changes the level from the next packet on. Only methods with levels have it; the level is one of
   * the method's.
   */
  setLevel?(level: number): void;
}

/** Where a decoder gets the payload of the packet in hand. */
export interface PayloadSource {
  /** Reads the next `bytes` bytes to `address`. */
  receive(address: number, bytes: number): void;
  /** Reads the next bytes straight into pages, all of them. */
  receiveRuns(runs: PageRuns): void;
}

/** Turns the payload of a packet into its normal pages. */
export interface PageDecoder extends Disposable {
  /**
   * Takes exactly `payloadBytes` bytes from `source` and fills `runs` completely. Must write nowhere
   * else, whatever the payload is.
   *
   * @throws {CodecError} when the payload does not decode to exactly these pages.
   */
  decode(runs: PageRuns, payloadBytes: number, source: PayloadSource): void;
}

/** An encoder's failure to stay within what a receiver takes. */
export function overflowError(): CodecError {
  return new CodecError(
    "ERR_MULTIFD_CODEC_OVERFLOW",
    `Cannot encode packet: more than ${PAYLOAD_BYTES_MAX} bytes of payload, the most a receiver takes`,
  );
}

/** An error about a payload, with the library's own error as the cause. */
export function codecError(method: string, reason: string, cause?: unknown): CodecError {
  return new CodecError("ERR_MULTIFD_CODEC", `Cannot decode ${method} payload: ${reason}`, {
    cause,
  });
}

/** What to throw for a failure inside a decoder: a library's refusal becomes a payload error. */
export function asCodecError(method: string, error: unknown): unknown {
  return error instanceof NativeCodecError ? codecError(method, error.message, error) : error;
}
