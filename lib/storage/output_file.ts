/**
 * A file that either appears complete or not at all, whatever ends the process: it has no name until
 * it is committed (O_TMPFILE), so that the kernel removes what nobody finished. Where the file system
 * cannot do that, and for the moment in which it replaces an older file, it has a name that tells
 * what it is; the next output in that folder removes those whose writers are gone.
 *
 * Where a file cannot be replaced, because bytes in front of it must stay or because it is a device,
 * it is written in place.
 *
 * @module
 */
import { close, Errno, flock, fsync, ftruncate, linkat, openFile, unwrap } from "../../ffi/libc.ts";
import { FileLock, OpenFlag } from "../../ffi/linux.ts";
import {
  fileNames,
  fileSystem,
  syncDescriptor,
  writeDescriptor,
} from "../../ffi/runtime/runtime.ts";
import { factsOfDescriptor, factsOfPath, type FileFacts } from "./file_facts.ts";
import { partName, sweepParts, syncFolder } from "./part_names.ts";
import { system, systemSync } from "./system_failure.ts";
import { checkKind, checkRegular, imageError, OpenedFile } from "./opened_file.ts";

/** A file that the process has open already: it has no name that could be given to another one. */
const DESCRIPTOR_PATH = /^\/(?:dev|proc\/self|proc\/\d+)\/fd\/\d+$/;

const FILE_MODE = 0o600; // guest memory is nobody else's business

/** How a file is written. */
interface OutputOptions {
  /** What the caller does, for messages. Default: creates the file. */
  readonly action?: string | undefined;
  /** First byte to write; what is in front of it stays, what follows is cut off. Default 0. */
  readonly offset?: number | undefined;
  /**
   * Write to the file itself. Always so when `offset` is not 0, for block devices, and for
   * descriptors that are open already (`/proc/self/fd/N`). Default false.
   */
  readonly inPlace?: boolean | undefined;
  /** Refuse everything that cannot be replaced. Default false. */
  readonly replaceOnly?: boolean | undefined;
  /** Have no name until the end where the file system can do that. Default true. */
  readonly unnamed?: boolean | undefined;
}

/** See the module comment. Disposing it removes what was not committed. */
export class OutputFile implements Disposable {
  /** The file as it is open for writing; closed with this object. */
  readonly file: OpenedFile;
  readonly #action: string;
  readonly #target: string;
  readonly #offset: number;
  readonly #regular: boolean;
  readonly #aside: boolean;
  /** The name it has meanwhile, if it has one. */
  #part: string | undefined;
  #open = true;
  #committed = false;

  /**
   * @throws {SystemError} when the file cannot be made.
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe or the like.
   */
  constructor(path: string, options: OutputOptions = {}) {
    const { action = `Cannot create ${path}`, offset = 0, inPlace = false } = options;
    const existing = existingFile(action, path);
    this.#action = action;
    this.#offset = offset;
    this.#regular = existing?.isRegular ?? true;
    if (options.replaceOnly === true && !this.#regular) {
      throw imageError(`${action}: it is ${existing!.kind}, must be a regular file`);
    }
    this.#aside = !inPlace && offset === 0 && this.#regular && !DESCRIPTOR_PATH.test(path);
    this.#target = this.#aside ? targetOf(action, path, existing) : path;
    this.file = new OpenedFile(
      path,
      this.#aside ? this.#openAside(options.unnamed ?? true) : openInPlace(action, path),
    );
    try {
      if (!this.#aside) this.#cut();
    } catch (error) {
      this.file[Symbol.dispose]();
      throw error;
    }
  }

  /** Descriptor for writing. */
  get fd(): number {
    return this.file.fd;
  }

  /**
   * Sets the length in bytes.
   *
   * @throws {SystemError} when the file cannot have it.
   */
  truncate(bytes: number): void {
    unwrap(this.#action, ftruncate(this.fd, bytes));
  }

  /**
   * Writes all of `bytes` at `position`.
   *
   * @throws {SystemError} when that fails, for example because the disk is full.
   */
  async write(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      const rest = done === 0 ? bytes : bytes.subarray(done);
      done += await system(this.#action, writeDescriptor(this.fd, rest, position + done));
    }
  }

  /**
   * Waits until everything written so far is on the device.
   *
   * @throws {SystemError} when it cannot be written.
   */
  async sync(): Promise<void> {
    if (this.#regular) await system(this.#action, syncDescriptor(this.fd));
  }

  /**
   * Gives the file its name.
   *
   * @param durable Wait until the name is on the device too.
   * @throws {SystemError} when that fails.
   */
  commit(durable: boolean): void {
    if (this.#aside) this.#name();
    this.#committed = true;
    if (durable && this.#aside) syncFolder(this.#action, fileNames().dirname(this.#target));
  }

  /** Closes the file, and removes what was not committed. Safe to call twice. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      if (!this.#committed) this.#discard();
    } finally {
      this.file[Symbol.dispose]();
    }
  }

  #openAside(unnamed: boolean): number {
    const folder = fileNames().dirname(this.#target);
    sweepParts(folder);
    const nameless = unnamed ? openUnnamed(folder) : -1;
    if (nameless >= 0) return nameless;
    const { fd, part } = openPart(this.#action, folder);
    this.#part = part;
    return fd;
  }

  #name(): void {
    if (this.#part === undefined) {
      const status = linkDescriptor(this.fd, this.#target);
      if (status >= 0) return;
      if (status !== -Errno.EEXIST) unwrap(this.#action, status);
      // A name that exists can only be taken by another name.
      const part = partName(fileNames().dirname(this.#target));
      unwrap(this.#action, linkDescriptor(this.fd, part));
      this.#part = part;
    }
    systemSync(this.#action, () => fileSystem().renameSync(this.#part!, this.#target));
    this.#part = undefined;
  }

  #discard(): void {
    if (this.#part !== undefined) fileSystem().rmSync(this.#part, { force: true });
    else if (!this.#aside && this.#regular) ftruncate(this.fd, this.#offset);
  }

  /** An older stream must be gone from the device before the first byte of the new one is there. */
  #cut(): void {
    if (!this.#regular) return;
    this.truncate(this.#offset);
    unwrap(this.#action, fsync(this.fd));
  }
}

/** A file without a name that can be given one; negative where there is no such thing. */
function openUnnamed(folder: string): number {
  const flags = OpenFlag.WRONLY | OpenFlag.TMPFILE | OpenFlag.DIRECTORY | OpenFlag.CLOEXEC;
  const fd = openFile(folder, flags, FILE_MODE);
  if (fd < 0) return fd;
  if (fileSystem().existsSync(descriptorPath(fd))) {
    flock(fd, FileLock.EXCLUSIVE); // for the moment in which it has a part's name
    return fd;
  }
  close(fd);
  return -Errno.ENOENT;
}

function openPart(action: string, folder: string): { readonly fd: number; readonly part: string } {
  for (;;) {
    const part = partName(folder);
    const flags = OpenFlag.WRONLY | OpenFlag.CREAT | OpenFlag.EXCL | OpenFlag.CLOEXEC;
    const fd = unwrap(action, openFile(part, flags, FILE_MODE));
    flock(fd, FileLock.EXCLUSIVE);
    // Whoever swept the folder before the lock was there has taken it for an abandoned one.
    if (factsOfDescriptor(action, fd).links > 0) return { fd, part };
    close(fd);
  }
}

function openInPlace(action: string, path: string): number {
  const flags = OpenFlag.WRONLY | OpenFlag.CREAT | OpenFlag.NONBLOCK | OpenFlag.CLOEXEC;
  const fd = unwrap(action, openFile(path, flags, FILE_MODE));
  try {
    checkRegular(action, fd);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function linkDescriptor(fd: number, path: string): number {
  return linkat(descriptorPath(fd), path);
}

function descriptorPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/**
 * Looks before the work that a file is for whether there can be one at `path`.
 *
 * @param action What the caller does, for messages.
 * @throws {SystemError} when its folder is not there.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe or the like.
 */
export function checkOutputPath(action: string, path: string): void {
  const existing = existingFile(action, path);
  if (existing === undefined) targetOf(action, path, existing);
}

function existingFile(action: string, path: string): FileFacts | undefined {
  const found = factsOfPath(action, path);
  if (found !== undefined) checkKind(action, found);
  return found;
}

/** Where the file will be in the end: links are followed, so that they stay. */
function targetOf(action: string, path: string, existing: FileFacts | undefined): string {
  const { realpathSync } = fileSystem();
  const { basename, dirname, join } = fileNames();
  return systemSync(action, () =>
    existing === undefined ? join(realpathSync(dirname(path)), basename(path)) : realpathSync(path),
  );
}
