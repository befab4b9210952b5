/**
 * A folder that appears with all its files or not at all. Until then it has a name that tells what it
 * is, and the next output beside it removes it if its writer is gone.
 *
 * A folder that is there already stays, since it may be a mount point or hold other things; its files
 * are replaced one by one.
 *
 * @module
 */
import { close, flock, openFile, unwrap } from "../../ffi/libc.ts";
import { FileLock, OpenFlag } from "../../ffi/linux.ts";
import { fileNames, fileSystem } from "../../ffi/runtime/runtime.ts";
import { factsOfDescriptor, factsOfPath } from "./file_facts.ts";
import { imageError } from "./opened_file.ts";
import { partName, sweepParts, syncFolder } from "./part_names.ts";
import { systemSync } from "./system_failure.ts";

/** See the module comment. Disposing it removes what was not committed. */
export class OutputFolder implements Disposable {
  /** Where to write the files. */
  readonly path: string;
  readonly #action: string;
  readonly #target: string;
  /** Holds the lock; negative for a folder that is there to stay. */
  readonly #fd: number;
  #open = true;

  /**
   * @param action What the caller does, for messages.
   * @throws {SystemError} when the folder cannot be made.
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when there is something else.
   */
  constructor(path: string, action: string) {
    const existing = factsOfPath(action, path);
    if (existing?.isDirectory === false) {
      throw imageError(`${action}: it is ${existing.kind}, must be a directory`);
    }
    this.#action = action;
    this.#target = fileNames().resolve(path);
    const { fd, part } = existing === undefined ? this.#make() : { fd: -1, part: this.#target };
    this.#fd = fd;
    this.path = part;
  }

  /**
   * Gives the folder its name, which is on the device then.
   *
   * @throws {SystemError} when that fails.
   */
  commit(): void {
    if (this.#fd < 0) return;
    syncFolder(this.#action, this.path);
    systemSync(this.#action, () => fileSystem().renameSync(this.path, this.#target));
    this.#close();
    syncFolder(this.#action, fileNames().dirname(this.#target));
  }

  /** Removes the folder unless it was committed. Safe to call twice. */
  [Symbol.dispose](): void {
    if (!this.#open || this.#fd < 0) return;
    try {
      fileSystem().rmSync(this.path, { recursive: true, force: true });
    } finally {
      this.#close();
    }
  }

  #close(): void {
    this.#open = false;
    close(this.#fd);
  }

  #make(): { readonly fd: number; readonly part: string } {
    const parent = fileNames().dirname(this.#target);
    sweepParts(parent);
    for (;;) {
      const part = partName(parent);
      systemSync(this.#action, () => fileSystem().mkdirSync(part));
      const fd = openFile(part, OpenFlag.RDONLY | OpenFlag.CLOEXEC);
      // Whoever swept the folder before the lock was there has taken it for an abandoned one.
      if (fd < 0 && factsOfPath(this.#action, part) === undefined) continue;
      unwrap(this.#action, fd);
      flock(fd, FileLock.EXCLUSIVE);
      if (factsOfDescriptor(this.#action, fd).links > 0) return { fd, part };
      close(fd);
    }
  }
}
