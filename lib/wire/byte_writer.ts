/**
 * Big-endian output through a fixed buffer, for the main stream: small fields, flushed in pieces.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";

/** Takes bytes from memory; a connection or a file. */
export interface ByteSink {
  /** Takes all `bytes` bytes at `address` before it returns. */
  send(address: number, bytes: number): void;
}

const BUFFER_BYTES = 65_536;

/** See the module comment. Nothing reaches the sink before `flush()` unless the buffer is full. */
export class ByteWriter {
  /** Bytes written since the start, flushed or not. */
  position = 0;
  readonly #sink: ByteSink;
  readonly #buffer = new Arena(BUFFER_BYTES);
  #used = 0;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  /** Appends one byte. */
  u8(value: number): void {
    this.#buffer.view.setUint8(this.#take(1), value);
  }

  /** Appends 16 bits. */
  u16(value: number): void {
    this.#buffer.view.setUint16(this.#take(2), value);
  }

  /** Appends 32 bits. */
  u32(value: number): void {
    this.#buffer.view.setUint32(this.#take(4), value);
  }

  /** Appends a safe integer as 64 bits. */
  u64(value: number): void {
    const at = this.#take(8);
    this.#buffer.view.setUint32(at, Math.floor(value / 0x1_0000_0000));
    this.#buffer.view.setUint32(at + 4, value >>> 0);
  }

  /** Appends bytes of any length. */
  bytes(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.byteLength;) {
      const count = Math.min(BUFFER_BYTES, bytes.byteLength - done);
      const at = this.#take(count);
      this.#buffer.u8.set(bytes.subarray(done, done + count), at);
      done += count;
    }
  }

  /**
   * Appends a string of at most 255 bytes behind its length byte.
   *
   * @throws {RangeError} when it is longer.
   */
  countedString(text: string): void {
    const bytes = new TextEncoder().encode(text);
    if (bytes.byteLength > 255) {
      throw new RangeError(`Cannot write string: ${bytes.byteLength} bytes, at most 255 fit`);
    }
    this.u8(bytes.byteLength);
    this.bytes(bytes);
  }

  /** Hands everything to the sink. */
  flush(): void {
    if (this.#used > 0) this.#sink.send(this.#buffer.address, this.#used);
    this.#used = 0;
  }

  #take(bytes: number): number {
    if (this.#used + bytes > BUFFER_BYTES) this.flush();
    const at = this.#used;
    this.#used += bytes;
    this.position += bytes;
    return at;
  }
}
