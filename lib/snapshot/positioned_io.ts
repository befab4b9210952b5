/**
 * Whole reads and writes at given places of a file, and a migration stream in a file that can skip
 * from one place to another.
 *
 * @module
 */
import { Errno, pread, pwrite, unwrap } from "../../ffi/libc.ts";
import { SystemError } from "../errors.ts";
import { ByteReader, type ByteSource } from "../wire/byte_reader.ts";
import { ByteWriter, type ByteSink } from "../wire/byte_writer.ts";
import type { OpenedFile } from "../storage/opened_file.ts";
import type { SharedSeekTable } from "./seek_table.ts";
import { fileError } from "./mapped_ram_format.ts";

/**
 * Reads exactly `bytes` bytes at file offset `offset` to `address`.
 *
 * @throws {StreamError} when the file ends before, {SystemError} when the kernel refuses.
 */
export function readWhole(fd: number, address: number, bytes: number, offset: number): void {
  for (let done = 0; done < bytes;) {
    const got = pread(fd, address + done, bytes - done, offset + done);
    if (got === -Errno.EINTR) continue;
    if (unwrap(`Cannot read file at ${offset + done}`, got) === 0) {
      throw fileError("TRUNCATED", `it ends at ${offset + done}, must hold ${bytes - done} more`);
    }
    done += got;
  }
}

/**
 * Writes all `bytes` bytes at `address` to file offset `offset`.
 *
 * @throws {SystemError} when the kernel refuses, for example ENOSPC.
 */
export function writeWhole(fd: number, address: number, bytes: number, offset: number): void {
  for (let done = 0; done < bytes;) {
    const put = pwrite(fd, address + done, bytes - done, offset + done);
    if (put === -Errno.EINTR) continue;
    if (unwrap(`Cannot write file at ${offset + done}`, put) === 0) {
      throw new SystemError(`Cannot write file at ${offset + done}: 0 bytes were taken`);
    }
    done += put;
  }
}

/** The bytes a stream is read from. */
export interface PositionedSource {
  /** Length in bytes. */
  readonly bytes: number;
  /** Reads exactly `bytes` bytes from `offset` on to `address`. */
  read(address: number, bytes: number, offset: number): void;
  /** The same to memory that is zero: holes are not read, so that they take no memory. */
  readSparse(address: number, bytes: number, offset: number): void;
}

/** Random access to the bytes of a snapshot, which may be stored compressed. Used by one thread. */
export interface SnapshotSource extends PositionedSource, Disposable {
  /** The file itself; closed with the source. */
  readonly file: OpenedFile;
  /** Where the file's frames are; undefined when it is not stored compressed. */
  readonly seekTable: SharedSeekTable | undefined;
}

/** A stream in a file, read from front to back with skips. */
export class FileInput implements ByteSource {
  /** The stream's bytes from the current place on. */
  readonly reader = new ByteReader(this);
  readonly #source: PositionedSource;
  #next: number;

  /** @param source Stays the caller's. */
  constructor(source: PositionedSource, offset: number) {
    this.#source = source;
    this.#next = offset;
  }

  /** File offset of the next byte that `reader` gives. */
  get offset(): number {
    return this.#next - this.reader.buffered;
  }

  /** Continues at another place. */
  seek(offset: number): void {
    this.reader.discardBuffered();
    this.#next = offset;
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    const left = Math.max(0, this.#source.bytes - this.#next);
    if (left === 0 && atBoundary) return 0;
    if (left < bytesMin) {
      throw fileError("TRUNCATED", `it ends at ${this.#source.bytes}, in the middle of the stream`);
    }
    const bytes = Math.min(left, bytesMax);
    this.#source.read(address, bytes, this.#next);
    this.#next += bytes;
    return bytes;
  }
}

/**
 * A stream in a file, written from front to back with skips. Its first bytes are kept back until
 * `seal()`, so that a file which was not finished does not begin like a stream.
 */
export class FileOutput implements ByteSink {
  /** Appends at the current place; flushed by `seek()` and `flush()`. */
  readonly writer = new ByteWriter(this);
  readonly #fd: number;
  readonly #start: number;
  #next: number;

  /** @param fd Stays the caller's. */
  constructor(fd: number, offset: number) {
    this.#fd = fd;
    this.#start = offset;
    this.#next = offset;
  }

  /** Writes out what is buffered and tells the file offset behind it. */
  flush(): number {
    this.writer.flush();
    return this.#next;
  }

  /** Continues at another place. */
  seek(offset: number): void {
    this.writer.flush();
    this.#next = offset;
  }

  send(address: number, bytes: number): void {
    const kept = Math.min(bytes, Math.max(0, this.#start + SEAL_BYTES - this.#next));
    if (bytes > kept) writeWhole(this.#fd, address + kept, bytes - kept, this.#next + kept);
    this.#next += bytes;
  }

  /** Writes the first bytes of the stream, `seal`, which must be those that were kept back. */
  seal(seal: (writer: ByteWriter) => void): void {
    this.flush();
    const fd = this.#fd;
    let at = this.#start;
    const writer = new ByteWriter({
      send(address, bytes) {
        writeWhole(fd, address, bytes, at);
        at += bytes;
      },
    });
    seal(writer);
    if (writer.position !== SEAL_BYTES) {
      throw new RangeError(
        `Cannot seal stream: ${writer.position} bytes, must be the ${SEAL_BYTES} kept back`,
      );
    }
    writer.flush();
  }
}

/** Bytes kept back at the front: magic and version of the stream. */
const SEAL_BYTES = 8;

/** @throws {RangeError} unless a stream can start there in a file. */
export function checkOffset(action: string, offset: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0) return;
  throw new RangeError(`${action}: offset ${offset}, must be 0 or more bytes`);
}
