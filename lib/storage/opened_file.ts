/**
 * Files that are read: opened once by their name, and by the open file from then on. Whoever replaces
 * the name meanwhile, as our own writers do, changes nothing for a reader that has begun.
 *
 * @module
 */
import { fstatSync, type Stats } from "node:fs";
import { close, Errno, fcntl, lseek, openFile, unwrap } from "../../ffi/libc.ts";
import { FileControl, OpenFlag, SeekFrom } from "../../ffi/linux.ts";
import { MultifdError } from "../errors.ts";

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
  const facts = fstatSync(fd);
  if (facts.isFile() || facts.isBlockDevice()) return;
  throw imageError(`${action}: it is ${kindOf(facts)}, must be a regular file or a block device`);
}

/** What something is that is no regular file, for messages. */
export function kindOf(facts: Stats): string {
  if (facts.isDirectory()) return "a directory";
  if (facts.isFIFO()) return "a pipe";
  if (facts.isSocket()) return "a socket";
  return facts.isBlockDevice() ? "a block device" : "a character device";
}

/** An error about a file that is not what it must be. */
export function imageError(message: string): MultifdError {
  return new MultifdError("ERR_MULTIFD_IMAGE", message);
}

/** Whether `errno` says that a file cannot be opened again, while its descriptor can be used. */
export function isNotReopenable(errno: number): boolean {
  const { ENOENT, EACCES } = Errno;
  return errno === ENOENT || errno === EACCES;
}
