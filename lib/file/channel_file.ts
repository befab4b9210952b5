/**
 * A channel's own descriptor of a file. O_DIRECT is a property of the open file and not of the
 * descriptor, so every channel opens the file again instead of sharing one.
 *
 * @module
 */
import { constants } from "node:fs";
import { close, Errno, fcntl, openFile, pread, pwrite, unwrap } from "../../ffi/libc.ts";
import { FileControl, OpenFlag } from "../../ffi/linux.ts";
import type { FileRound } from "./file_round.ts";
import { readWhole, writeWhole } from "./positioned_io.ts";

/** See the module comment. */
export class ChannelFile implements Disposable {
  readonly #round: FileRound;
  #fd: number;
  #direct: boolean;

  /**
   * @param direct Ask for O_DIRECT; where the file system refuses it, now or at the first access,
   * the file is used through the page cache and the refusal is noted in `round`.
   * @throws {SystemError} when the file cannot be opened.
   */
  constructor(path: string, mode: "read" | "write", direct: boolean, round: FileRound) {
    const flags = (mode === "read" ? OpenFlag.RDONLY : OpenFlag.WRONLY) | OpenFlag.CLOEXEC;
    this.#round = round;
    this.#direct = direct;
    this.#fd = direct ? openFile(path, flags | constants.O_DIRECT) : openFile(path, flags);
    if (direct && this.#fd === -Errno.EINVAL) {
      this.#direct = false;
      round.refuseDirect(Errno.EINVAL);
      this.#fd = openFile(path, flags);
    }
    unwrap(`Cannot open ${path}`, this.#fd);
  }

  /** Reads exactly `bytes` bytes; see `readWhole()`. */
  read(address: number, bytes: number, offset: number): void {
    const done = this.#direct ? this.#attempt(pread, address, bytes, offset) : 0;
    if (done < bytes) readWhole(this.#fd, address + done, bytes - done, offset + done);
  }

  /** Writes all `bytes` bytes; see `writeWhole()`. */
  write(address: number, bytes: number, offset: number): void {
    const done = this.#direct ? this.#attempt(pwrite, address, bytes, offset) : 0;
    if (done < bytes) writeWhole(this.#fd, address + done, bytes - done, offset + done);
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  /** One direct access; what it leaves over is unaligned or refused and goes through the cache. */
  #attempt(access: typeof pread, address: number, bytes: number, offset: number): number {
    const done = access(this.#fd, address, bytes, offset);
    if (done === bytes || done === -Errno.EINTR) return Math.max(0, done);
    if (done === -Errno.EINVAL) this.#round.refuseDirect(Errno.EINVAL);
    // Any other failure shows itself again at the buffered access that follows.
    this.#direct = false;
    const flags = unwrap("Cannot read file flags", fcntl(this.#fd, FileControl.GETFL, 0));
    const buffered = flags & ~constants.O_DIRECT;
    unwrap("Cannot set file flags", fcntl(this.#fd, FileControl.SETFL, buffered));
    return Math.max(0, done);
  }
}
