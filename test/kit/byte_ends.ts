/**
 * A main stream in memory: a sink that keeps what a writer sends and a source that gives bytes to a
 * reader, in pieces as small as a test wants them.
 *
 * @module
 */
import { viewOfMemory } from "../../ffi/arena.ts";
import { ChannelError } from "../../lib/errors.ts";
import { ByteReader, type ByteSource } from "../../lib/wire/byte_reader.ts";
import { ByteWriter, type ByteSink } from "../../lib/wire/byte_writer.ts";

/** Keeps everything that is sent. */
class MemorySink implements ByteSink {
  readonly #parts: Uint8Array[] = [];

  send(address: number, bytes: number): void {
    this.#parts.push(viewOfMemory(address, bytes).slice());
  }

  /** All bytes so far. */
  get bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts));
  }
}

/** Gives the bytes of an array, at most `pieceBytes` a read beyond what the reader insists on. */
export class MemorySource implements ByteSource {
  readonly #bytes: Uint8Array;
  readonly #pieceBytes: number;
  #at = 0;

  constructor(bytes: Uint8Array, pieceBytes = Infinity) {
    this.#bytes = bytes;
    this.#pieceBytes = pieceBytes;
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    const left = this.#bytes.byteLength - this.#at;
    if (left === 0 && atBoundary) return 0;
    if (left < bytesMin) throw new ChannelError("ERR_MULTIFD_CHANNEL_ENDED", "the bytes end here");
    const count = Math.min(left, bytesMax, Math.max(bytesMin, this.#pieceBytes));
    viewOfMemory(address, count).set(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return count;
  }
}

/** What `write` puts into a stream. */
export function written(write: (out: ByteWriter) => void): Uint8Array {
  const sink = new MemorySink();
  const out = new ByteWriter(sink);
  write(out);
  out.flush();
  return sink.bytes;
}

/** A reader over `bytes`. */
export function readerOf(bytes: Uint8Array, pieceBytes?: number): ByteReader {
  return new ByteReader(new MemorySource(bytes, pieceBytes));
}

/** Bytes from hexadecimal text; blanks do not count. */
export function hex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
}
