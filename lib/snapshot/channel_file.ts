/**
 * A channel's own descriptor of a file. O_DIRECT is a property of the open file and not of the
 * descriptor, so every channel opens the file again instead of sharing one.
 *
 * @module
 */
import { close, Errno, fcntl, pread, pwrite, unwrap } from "../../ffi/libc.ts";
import { FileControl, OpenFlag } from "../../ffi/linux.ts";
import {
  duplicateDescriptor,
  isNotReopenable,
  openAgain,
  type OpenedFile,
} from "../storage/opened_file.ts";
import type { FileRound } from "./file_round.ts";
import { readWhole, writeWhole } from "./positioned_io.ts";

/** See the module comment. */
export class ChannelFile implements Disposable {
  readonly #round: FileRound;
  #fd: number;
  #direct: boolean;

  /**
   * @param file Stays the caller's; it is opened again whatever has its name now.
   * @param direct Ask for O_DIRECT; where the file system refuses it, now or at the first access,
   * the file is used through the page cache and the refusal is noted in `round`.
   * @throws {SystemError} when the file cannot be opened.
   */
  constructor({ path, fd }: OpenedFile, mode: "read" | "write", direct: boolean, round: FileRound) {
    const flags = mode === "read" ? OpenFlag.RDONLY : OpenFlag.WRONLY;
    this.#round = round;
    this.#direct = direct;
    this.#fd = openAgain(fd, direct ? flags | OpenFlag.DIRECT : flags);
    if (direct && this.#fd < 0) {
      this.#direct = false;
      round.refuseDirect(-this.#fd);
      this.#fd = openAgain(fd, flags);
    }
    // Positioned access works on a shared open file too; only reading ahead gets worse.
    if (isNotReopenable(-this.#fd)) this.#fd = duplicateDescriptor(path, fd);
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
    const buffered = flags & ~OpenFlag.DIRECT;
    unwrap("Cannot set file flags", fcntl(this.#fd, FileControl.SETFL, buffered));
    return Math.max(0, done);
  }
}
