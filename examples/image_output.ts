/**
 * Where received memory goes: one file for one block, a directory with a file for each of several.
 *
 * The names of blocks come from the other side and may be anything, `../../etc/passwd` included, so
 * a file name is made of them that stays in its directory and can be turned back into the name.
 *
 * @module
 */
import { access, constants, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { BlockImage, RamBlock } from "../mod.ts";
import { library } from "./library.ts";

/** Bytes that file systems allow in one name. */
const FILE_NAME_BYTES_MAX = 255;

/** Where received blocks go. */
export interface OutputPlan {
  /** The folder for several blocks; undefined when the one block's file is `path`. */
  readonly folder: string | undefined;
  readonly files: readonly (BlockImage & { readonly path: string })[];
}

/**
 * File name for a block id: letters, digits, `-`, `_` and dots that are not in front stay, every
 * other byte of its UTF-8 form becomes `%` and two hexadecimal digits. `decodeURIComponent()` turns
 * it back.
 *
 * @throws {Error} when the name gets longer than file systems allow.
 */
export function fileNameOf(idstr: string): string {
  let name = "";
  for (const byte of new TextEncoder().encode(idstr)) {
    const character = String.fromCharCode(byte);
    const plain = /[\w-]/.test(character) || (character === "." && name !== "");
    name += plain ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  if (name.length > FILE_NAME_BYTES_MAX) {
    throw new Error(
      `Cannot name a file after RAM block ${JSON.stringify(idstr)}: the name has ${name.length} bytes, at most ${FILE_NAME_BYTES_MAX} are possible`,
    );
  }
  return name;
}

/**
 * Looks before anything is received whether something can be written to `output` at all.
 *
 * @throws {Error} when its directory is missing or not writable, or when it is neither file nor folder.
 */
export async function checkOutput(output: string): Promise<void> {
  const facts = await stat(output).catch(() => undefined);
  if (facts !== undefined && !facts.isFile() && !facts.isDirectory()) {
    throw new Error(`Cannot write ${output}: it exists and must be a regular file or a folder`);
  }
  const directory = facts?.isDirectory() === true ? output : dirname(output);
  try {
    await access(directory, constants.W_OK | constants.X_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(`Cannot write to ${directory}: ${code ?? "not accessible"}`, { cause: error });
  }
}

/**
 * Decides which file each block goes to. An existing directory, and a path that ends with `/`, get
 * a file per block in them; so does any path when there are several blocks. Nothing is made yet.
 *
 * @throws {Error} when there are several blocks and `output` is a file.
 */
export async function planOutput(output: string, blocks: readonly RamBlock[]): Promise<OutputPlan> {
  const facts = await stat(output).catch(() => undefined);
  const exists = facts?.isDirectory() ?? false;
  const [first] = blocks;
  if (first !== undefined && blocks.length === 1 && !exists && !output.endsWith("/")) {
    return { folder: undefined, files: [{ block: first, name: basename(output), path: output }] };
  }
  if (facts !== undefined && !exists) {
    throw new Error(
      `Cannot write ${blocks.length} RAM blocks to ${output}: it is a file, must be a directory`,
    );
  }
  const files = blocks.map((block) => {
    const name = fileNameOf(block.idstr);
    return { block, name, path: join(output, name) };
  });
  return { folder: output, files };
}

/** Writes the blocks; what was planned appears when it is complete. */
export async function writeOutput(plan: OutputPlan, signal: AbortSignal): Promise<void> {
  if (plan.folder !== undefined) await library().saveBlocks(plan.folder, plan.files, { signal });
  else for (const { block, path } of plan.files) await block.toFile(path, { signal });
}
