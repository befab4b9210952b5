/**
 * Files that are read: opened once by their name, and by the open file from then on. Whoever replaces
 * the name meanwhile, as our own writers do, changes nothing for a reader that has begun.
 *
 * @module
 */
import { close, Errno, fcntl, lseek, openFile, pread, unwrap } from "../../ffi/libc.ts";
import { FileControl, OpenFlag, SeekFrom } from "../../ffi/linux.ts";
import { MultifdError } from "../errors.ts";
import { factsOfDescriptor, type FileFacts } from "./file_facts.ts";

/** Where something lies in a file that stays open while it is in use. */
export interface FilePlace {
  readonly fd: number;
  /** File offset of its first byte. */
  readonly offset: number;
}

/** A file that is open. Disposing closes it. */
export class OpenedFile implements Disposable {
  /** What it was opened as, for messages. */
  readonly path: string;
  readonly #fd: number;
  #open = true;

  /** @param fd Belongs to this object from now on. */
  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  /** The descriptor; valid until the object is disposed of. */
  get fd(): number {
    if (this.#open) return this.#fd;
    throw new TypeError(`Cannot use ${this.path}: it is closed`);
  }

  /** Length in bytes as of now, of block devices too. */
  length(): number {
    return unwrap(`Cannot find the length of ${this.path}`, lseek(this.fd, 0, SeekFrom.END));
  }

  /**
   * Reads `bytes` bytes from `offset` on to `address`, on this thread.
   *
   * @returns The bytes read; fewer only when the file ends before.
   * @throws {SystemError} when the kernel refuses.
   */
  read(address: number, bytes: number, offset: number): number {
    return readFrom(this.path, this.fd, address, bytes, offset);
  }

  /** What the file is, as of now. */
  facts(): FileFacts {
    return factsOfDescriptor(`Cannot look at ${this.path}`, this.fd);
  }

  /**
   * Another object for the same open file, which outlives this one.
   *
   * @throws {SystemError} when there are too many descriptors.
   */
  duplicate(): OpenedFile {
    return new OpenedFile(this.path, duplicateDescriptor(this.path, this.fd));
  }

  /** Closes the file. Safe to call twice. */
  [Symbol.dispose](): void {
    if (this.#open) close(this.#fd);
    this.#open = false;
  }
}

/**
 * Reads `bytes` bytes from `offset` on to `address`, on this thread.
 *
 * @param name What is read, for messages.
 * @returns The bytes read; fewer only when the file ends before.
 * @throws {SystemError} when the kernel refuses.
 */
export function readFrom(
  name: string,
  fd: number,
  address: number,
  bytes: number,
  offset: number,
): number {
  let done = 0;
  while (done < bytes) {
    const got = pread(fd, address + done, bytes - done, offset + done);
    if (got === -Errno.EINTR) continue;
    if (unwrap(`Cannot read ${name} at ${offset + done}`, got) === 0) break;
    done += got;
  }
  return done;
}

/**
 * Opens something that has a length and can be read at any place. Never waits for somebody else, as
 * opening a pipe does.
 *
 * @param action What the caller does, for messages.
 * @param flags More `open()` flags than those for reading.
 * @throws {SystemError} when it cannot be opened.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe, socket or terminal.
 */
export function openRegularFile(action: string, path: string, flags = 0): OpenedFile {
  // A pipe without the other side would block in open() for ever; regular files ignore the flag.
  const always = OpenFlag.NONBLOCK | OpenFlag.CLOEXEC;
  const file = new OpenedFile(path, unwrap(action, openFile(path, flags | always)));
  try {
    checkRegular(action, file.fd);
    return file;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/**
 * Opens the file behind a descriptor again, with flags and a position of its own, whatever has its
 * name now.
 *
 * @returns A descriptor, or `-errno`.
 */
export function openAgain(fd: number, flags: number): number {
  return openFile(`/proc/self/fd/${fd}`, flags | OpenFlag.CLOEXEC);
}

/** A descriptor of the same open file. */
export function duplicateDescriptor(path: string, fd: number): number {
  return unwrap(`Cannot open ${path} again`, fcntl(fd, FileControl.DUPFD_CLOEXEC, 0));
}

/** @throws {MultifdError} unless `fd` is a regular file or a block device. */
export function checkRegular(action: string, fd: number): void {
  checkKind(action, factsOfDescriptor(action, fd));
}

/** @throws {MultifdError} unless it is a regular file or a block device. */
export function checkKind(action: string, facts: FileFacts): void {
  if (facts.isRegular || facts.isBlockDevice) return;
  throw imageError(`${action}: it is ${facts.kind}, must be a regular file or a block device`);
}

/** An error about a file that is not what it must be. */
export function imageError(message: string): MultifdError {
  return new MultifdError("ERR_MULTIFD_IMAGE", message);
}

/** Whether `errno` says that a file cannot be opened again, while its descriptor can be used. */
export function isNotReopenable(errno: number): boolean {
  return errno === Errno.ENOENT || errno === Errno.EACCES;
}
