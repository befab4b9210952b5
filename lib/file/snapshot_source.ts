/**
 * Where the bytes of a snapshot come from: a file as it is, or one that is stored compressed. Both
 * give any range of the same bytes.
 *
 * @module
 */
import { fstatSync } from "node:fs";
import { Arena } from "../../ffi/arena.ts";
import { close, openFile, pread, unwrap } from "../../ffi/libc.ts";
import { OpenFlag } from "../../ffi/linux.ts";
import { readWhole, type SnapshotSource } from "./positioned_io.ts";
import { SeekableZstdSource } from "./seekable_zstd.ts";

/** First word of a zstd frame, little-endian. */
const ZSTD_MAGIC = 0xfd2f_b528;

/**
 * Opens a file; what it is shows in its first bytes.
 *
 * @throws {SystemError} when it cannot be opened, {StreamError} when its seek table is damaged.
 */
export function openSnapshotSource(path: string): SnapshotSource {
  const fd = unwrap(`Cannot open ${path}`, openFile(path, OpenFlag.RDONLY | OpenFlag.CLOEXEC));
  try {
    const { size } = fstatSync(fd);
    const head = new Arena(4);
    const got = unwrap(`Cannot read ${path}`, pread(fd, head.address, 4, 0));
    const compressed = got === 4 && head.view.getUint32(0, true) === ZSTD_MAGIC;
    return compressed ? new SeekableZstdSource(fd, size) : new PlainSource(fd, size);
  } catch (error) {
    close(fd);
    throw error;
  }
}

class PlainSource implements SnapshotSource {
  readonly bytes: number;
  readonly compressed = false;
  #fd: number;

  constructor(fd: number, bytes: number) {
    this.#fd = fd;
    this.bytes = bytes;
  }

  read(address: number, bytes: number, offset: number): void {
    readWhole(this.#fd, address, bytes, offset);
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }
}
