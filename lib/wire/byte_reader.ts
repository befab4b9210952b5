/**
 * Big-endian input through a fixed buffer, for the main stream.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { StreamError } from "../errors.ts";

/** Gives bytes to memory; a connection or a file. */
export interface ByteSource {
  /**
   * Reads at least `bytesMin` and at most `bytesMax` bytes to `address`. At the end it returns 0 if
   * `atBoundary`, and throws otherwise.
   */
  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number;
  /** Whether a byte or the end arrives within `waitMs`; absent where reading never waits. */
  isReadable?(waitMs: number): boolean;
}

/** Every byte counts in a name: one that is replaced or left out makes it another name. */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const BUFFER_BYTES = 65_536;
/** Room in front of what was read, for bytes that are given back. */
const GIVE_BACK_BYTES = 1024;

/** See the module comment. */
export class ByteReader {
  readonly #source: ByteSource;
  readonly #buffer = new Arena(GIVE_BACK_BYTES + BUFFER_BYTES);
  #start = GIVE_BACK_BYTES;
  #end = GIVE_BACK_BYTES;
  #consumed = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Bytes consumed since the start. */
  get position(): number {
    return this.#consumed;
  }

  /** Bytes that were taken from the source and are not consumed. */
  get buffered(): number {
    return this.#end - this.#start;
  }

  /** Forgets what was read ahead, because the source continues at another place. */
  discardBuffered(): void {
    this.#start = this.#end;
  }

  /** Whether the source ends here; blocks until that is known. */
  atEnd(): boolean {
    return this.#end === this.#start && !this.#fill(1, true);
  }

  /**
   * Waits for the next byte, or the end, where the other side may be silent for long: between two
   * messages, with the idle limit of a connection instead of the one for a stall.
   */
  awaitNext(): void {
    this.atEnd();
  }

  /** Reads one byte. */
  u8(): number {
    return this.#buffer.view.getUint8(this.#take(1));
  }

  /** Reads 16 bits. */
  u16(): number {
    return this.#buffer.view.getUint16(this.#take(2));
  }

  /** Reads 32 bits. */
  u32(): number {
    return this.#buffer.view.getUint32(this.#take(4));
  }

  /**
   * Reads 64 bits that must be a safe integer.
   *
   * @throws {StreamError} for 2^53 and above, which no length or address in a stream reaches.
   */
  u64(): number {
    const at = this.#take(8);
    const high = this.#buffer.view.getUint32(at);
    if (high >= 0x20_0000) {
      throw new StreamError(
        "ERR_MULTIFD_STREAM_NUMBER",
        `Cannot read stream: a 64-bit number at byte ${this.#consumed - 8} is above 2^53`,
      );
    }
    return high * 0x1_0000_0000 + this.#buffer.view.getUint32(at + 4);
  }

  /** Reads `count` bytes into memory of their own; the caller has checked `count` against a limit. */
  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count;) {
      const part = Math.min(BUFFER_BYTES, count - done);
      const at = this.#take(part);
      bytes.set(this.#buffer.u8.subarray(at, at + part), done);
      done += part;
    }
    return bytes;
  }

  /** Passes over `count` bytes. */
  skip(count: number): void {
    for (let left = count; left > 0;) {
      const part = Math.min(BUFFER_BYTES, left);
      this.#take(part);
      left -= part;
    }
  }

  /**
   * Reads a string behind its length byte.
   *
   * @throws {StreamError} when it is not UTF-8.
   */
  countedString(): string {
    return this.text(this.u8());
  }

  /**
   * Reads `count` bytes of UTF-8; the caller has checked `count` against a limit.
   *
   * @throws {StreamError} when they are none.
   */
  text(count: number): string {
    const bytes = this.bytes(count);
    try {
      return UTF8.decode(bytes);
    } catch (error) {
      throw new StreamError(
        "ERR_MULTIFD_STREAM_TEXT",
        `Cannot read stream: the name of ${count} bytes that ends at byte ${this.#consumed} is not UTF-8`,
        { cause: error },
      );
    }
  }

  /** Reads what there is, at least one byte and at most `bytesMax`; undefined at the end. */
  some(bytesMax: number): Uint8Array | undefined {
    if (this.atEnd()) return undefined;
    const at = this.#take(Math.min(bytesMax, this.#end - this.#start));
    return this.#buffer.u8.slice(at, this.#start);
  }

  /**
   * What comes next, at least `bytesMin` bytes, which must fit the buffer, and all there is; nothing
   * of it is consumed, and it is valid until the next call. Undefined when the source ends before.
   */
  ahead(bytesMin: number): Uint8Array | undefined {
    while (this.buffered < bytesMin) {
      if (!this.#fill(this.buffered + 1, true)) return undefined;
    }
    return this.#buffer.u8.subarray(this.#start, this.#end);
  }

  /** Whether the next byte, or the end, is here within `waitMs`. */
  isReadable(waitMs: number): boolean {
    return this.#end > this.#start || (this.#source.isReadable?.(waitMs) ?? true);
  }

  /**
   * Takes what the source has within `waitMs`, beside what is here already; nothing is consumed.
   *
   * @returns What came. Whoever has consumed nothing for as long as the buffer is full gets nothing.
   */
  gather(waitMs: number): "bytes" | "end" | "nothing" {
    if (this.buffered >= BUFFER_BYTES) return "nothing";
    if (this.#source.isReadable?.(waitMs) === false) return "nothing";
    return this.#fill(this.buffered + 1, true) ? "bytes" : "end";
  }

  /** Puts the last bytes read, at most 1 KiB, back to be read again. */
  giveBack(bytes: Uint8Array): void {
    if (bytes.byteLength > this.#start) {
      throw new RangeError(
        `Cannot give back ${bytes.byteLength} bytes: there is room for ${this.#start}`,
      );
    }
    this.#start -= bytes.byteLength;
    this.#consumed -= bytes.byteLength;
    this.#buffer.u8.set(bytes, this.#start);
  }

  #take(bytes: number): number {
    if (this.#end - this.#start < bytes) this.#fill(bytes, false);
    const at = this.#start;
    this.#start += bytes;
    this.#consumed += bytes;
    return at;
  }

  #fill(bytes: number, atBoundary: boolean): boolean {
    const buffered = this.#end - this.#start;
    this.#buffer.u8.copyWithin(GIVE_BACK_BYTES, this.#start, this.#end);
    this.#start = GIVE_BACK_BYTES;
    this.#end = GIVE_BACK_BYTES + buffered;
    const got = this.#source.receiveSome(
      this.#buffer.address + this.#end,
      bytes - buffered,
      BUFFER_BYTES - buffered,
      atBoundary,
    );
    this.#end += got;
    return got > 0;
  }
}
