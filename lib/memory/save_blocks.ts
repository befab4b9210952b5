/**
 * Several blocks in one folder, complete or not there.
 *
 * @module
 */
import { OutputFolder } from "../storage/output_folder.ts";
import type { RamBlock } from "./ram_block.ts";

/** A block and the name of its file. */
export interface BlockImage {
  readonly block: RamBlock;
  /** Name in the folder, without a slash. */
  readonly name: string;
}

/**
 * Writes blocks to files of a folder as `RamBlock.toFile()` does. A folder that is not there yet
 * appears with all of them or not at all, whatever ends the process; in one that is there, each file
 * appears by itself.
 *
 * @throws {RangeError} for a name that leads out of the folder, or comes twice.
 * @throws {SystemError} when writing fails, for example because the disk is full.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when `path` is something else than a folder.
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function saveBlocks(
  path: string,
  images: readonly BlockImage[],
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const names = new Set<string>();
  for (const { name } of images) {
    const action = `Cannot save RAM block to ${JSON.stringify(name)} in ${path}`;
    if (name === "" || name === "." || name === ".." || /[/\0]/.test(name)) {
      throw new RangeError(`${action}: it is no name of a file, must be one without a slash`);
    }
    if (names.has(name)) throw new RangeError(`${action}: the name comes twice, must be once`);
    names.add(name);
  }
  using folder = new OutputFolder(path, `Cannot save to ${path}`);
  for (const { block, name } of images) await block.toFile(`${folder.path}/${name}`, options);
  folder.commit();
}
