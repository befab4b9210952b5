/**
 * Raw memory images beside a snapshot, one file per block.
 *
 * @module
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Snapshot, PageReader } from "../../mod.ts";
import { UsageError } from "../arguments.ts";

/** See the module comment. The images have exactly the lengths of their blocks. */
export class RawImages implements PageReader, Disposable {
  readonly #descriptors = new Map<string, number>();

  /** Opens the images of blocks that `file` has. */
  constructor(
    file: Snapshot,
    images: readonly { readonly idstr: string; readonly path: string }[],
  ) {
    try {
      for (const { idstr, path } of images) {
        const block = file.blocks.find((candidate) => candidate.idstr === idstr);
        if (block === undefined) throw new UsageError(`${file.path} has no RAM block ${idstr}`);
        // A pipe without a writer would block for ever; regular files ignore the flag.
        const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
        this.#descriptors.set(idstr, fd);
        const facts = fstatSync(fd);
        if (!facts.isFile()) throw new Error(`Cannot use ${path}: it must be a regular file`);
        const { size } = facts;
        if (size !== block.bytes) {
          throw new Error(
            `Cannot use ${path} as RAM block ${idstr}: ${size} bytes, must be ${block.bytes}`,
          );
        }
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  readRange(idstr: string, offset: number, target: Uint8Array): void {
    const fd = this.#descriptors.get(idstr);
    if (fd === undefined) throw new RangeError(`Cannot read RAM block ${idstr}: no image of it`);
    for (let done = 0; done < target.byteLength;) {
      const got = readSync(fd, target, done, target.byteLength - done, offset + done);
      if (got === 0) throw new Error(`Cannot read image of RAM block ${idstr}: it got shorter`);
      done += got;
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#descriptors.values()) closeSync(fd);
    this.#descriptors.clear();
  }
}
