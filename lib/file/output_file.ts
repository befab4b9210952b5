/**
 * A file that either appears complete or not at all: it is written under another name and renamed at
 * the end. Where that is impossible, because bytes in front of it must stay or because it is a
 * device, it is written in place.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  constants,
} from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { SystemError } from "../errors.ts";

/** A file that the process has open already: it has no name that could be given to another one. */
const DESCRIPTOR_PATH = /^\/(?:dev|proc\/self|proc\/\d+)\/fd\/\d+$/;

const FILE_MODE = 0o600; // guest memory is nobody else's business

/** See the module comment. */
export class OutputFile implements Disposable {
  /** Where the file is written to until it is committed. */
  readonly path: string;
  /** Descriptor for writing. */
  readonly fd: number;
  readonly #target: string;
  readonly #offset: number;
  readonly #regular: boolean;
  readonly #aside: boolean;
  #open = true;
  #committed = false;

  /**
   * @param offset First byte to write; what is in front of it stays, what follows is cut off.
   * @param inPlace Write to `path` itself; always so when `offset` is not 0, and for descriptors
   * that are open already (`/proc/self/fd/N`).
   * @throws {SystemError} when the file cannot be made.
   */
  constructor(path: string, offset: number, inPlace: boolean) {
    const existing = existingFile(path);
    this.#regular = existing?.regular ?? true;
    this.#target = existing?.path ?? path;
    this.#offset = offset;
    this.#aside = !inPlace && offset === 0 && this.#regular && !DESCRIPTOR_PATH.test(path);
    this.path = this.#aside ? `${this.#target}.partial-${randomUUID().slice(0, 8)}` : path;
    this.fd = system(`Cannot create ${this.path}`, () => {
      const flags = constants.O_WRONLY | constants.O_CREAT | (this.#aside ? constants.O_EXCL : 0);
      return openSync(this.path, flags, FILE_MODE);
    });
    try {
      if (!this.#aside) this.#cut();
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  /** Waits until everything written so far is on the device. */
  async sync(): Promise<void> {
    if (!this.#regular) return;
    await promisify(fsync)(this.fd).catch((error: unknown) => {
      throw systemError(`Cannot sync ${this.path}`, error);
    });
  }

  /**
   * Gives the file its name.
   *
   * @param durable Wait until the name is on the device too.
   */
  commit(durable: boolean): void {
    if (this.#aside) {
      system(`Cannot rename ${this.path} to ${this.#target}`, () =>
        renameSync(this.path, this.#target),
      );
    }
    this.#committed = true;
    if (!durable || !this.#aside) return;
    system(`Cannot sync folder of ${this.#target}`, () => {
      const folder = openSync(dirname(this.#target), constants.O_RDONLY);
      try {
        fsyncSync(folder);
      } finally {
        closeSync(folder);
      }
    });
  }

  /** Closes the file, and removes what was not committed. Safe to call twice. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      if (!this.#committed) this.#discard();
    } finally {
      closeSync(this.fd);
    }
  }

  #discard(): void {
    if (this.#aside) rmSync(this.path, { force: true });
    else if (this.#regular) ftruncateSync(this.fd, this.#offset);
  }

  /** An older stream must be gone from the device before the first byte of the new one is there. */
  #cut(): void {
    if (!this.#regular) return;
    system(`Cannot truncate ${this.path}`, () => {
      ftruncateSync(this.fd, this.#offset);
      fsyncSync(this.fd);
    });
  }
}

function existingFile(path: string): { path: string; regular: boolean } | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  const named = found.isFile() && !DESCRIPTOR_PATH.test(path);
  return { path: named ? realpathSync(path) : path, regular: found.isFile() };
}

function system<Result>(action: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    throw systemError(action, error);
  }
}

function systemError(action: string, cause: unknown): SystemError {
  const errno = (cause as NodeJS.ErrnoException).code ?? "unknown error";
  return new SystemError(`${action}: ${errno}`, { errno, cause });
}
