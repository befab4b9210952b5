/**
 * Where the bytes of a snapshot come from: a file as it is, or one that is stored compressed. Both
 * give any range of the same bytes.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, lseek, pread, unwrap } from "../../ffi/libc.ts";
import { SeekFrom } from "../../ffi/linux.ts";
import type { OpenedFile } from "../storage/opened_file.ts";
import { fileError } from "./mapped_ram_format.ts";
import { readWhole, type SnapshotSource } from "./positioned_io.ts";
import { SeekTable, type SharedSeekTable } from "./seek_table.ts";
import { SeekableZstdSource } from "./seekable_zstd.ts";

/** First word of a zstd frame, little-endian. */
const ZSTD_MAGIC = 0xfd2f_b528;

/**
 * Looks what a file is, which shows in its first bytes, and reads its seek table if it has one.
 *
 * @param file Belongs to the source unless this throws.
 * @throws {StreamError} when the seek table is damaged, {SystemError} when reading fails.
 */
export function readSnapshotSource(file: OpenedFile): SnapshotSource {
  const fileBytes = file.length();
  const head = new Arena(4);
  const got = unwrap(`Cannot read ${file.path}`, pread(file.fd, head.address, 4, 0));
  if (got < 4 || head.view.getUint32(0, true) !== ZSTD_MAGIC) {
    return new PlainSource(file, fileBytes);
  }
  let buffer: Arena | undefined;
  const read = (offset: number, bytes: number): Uint8Array => {
    if (buffer === undefined || buffer.u8.byteLength < bytes) buffer = new Arena(bytes);
    readWhole(file.fd, buffer.address, bytes, offset);
    return buffer.u8.subarray(0, bytes);
  };
  return new SeekableZstdSource(file, SeekTable.read(read, fileBytes));
}

/**
 * The bytes of a file that was looked at before, on whatever thread.
 *
 * @param file Belongs to the source.
 * @param table The file's seek table if it is stored compressed.
 */
export function snapshotSource(
  file: OpenedFile,
  table: SharedSeekTable | undefined,
): SnapshotSource {
  return table === undefined
    ? new PlainSource(file, file.length())
    : new SeekableZstdSource(file, new SeekTable(table));
}

class PlainSource implements SnapshotSource {
  readonly bytes: number;
  readonly file: OpenedFile;
  readonly seekTable = undefined;

  constructor(file: OpenedFile, bytes: number) {
    this.file = file;
    this.bytes = bytes;
  }

  read(address: number, bytes: number, offset: number): void {
    readWhole(this.file.fd, address, bytes, offset);
  }

  readSparse(address: number, bytes: number, offset: number): void {
    const { fd } = this.file;
    const end = offset + bytes;
    for (let at = offset; at < end;) {
      const data = lseek(fd, at, SeekFrom.DATA);
      if (data === -Errno.ENXIO || data >= end) break; // a hole up to the end
      if (data < 0) return this.read(address, bytes, offset); // nobody here knows of holes
      const hole = lseek(fd, data, SeekFrom.HOLE);
      const stop = hole < 0 ? end : Math.min(hole, end);
      readWhole(fd, address + (data - offset), stop - data, data);
      at = stop;
    }
    // What was cut off looks like a hole.
    const length = this.file.length();
    if (length < end) throw fileError("TRUNCATED", `it ends at ${length}, before ${end}`);
  }

  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }
}
