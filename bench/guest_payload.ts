/**
 * Chooses files of this machine as the content of a guest's memory: text and programs, as a page
 * cache holds them.
 *
 * @module
 */

import type { Dirent } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";

/** Kinds of file a payload consists of. */
export type PayloadKind = "text" | "program";

const FILE_BYTES_MIN = 512;
const FILE_BYTES_MAX = 8 * 2 ** 20; // one huge file must not be half the image
const HEAD_BYTES = 4096; // enough to tell text from everything else
const PASSES_MAX = 8;
const ELF_MAGIC = "\x7fELF";

const ROOTS: Readonly<Record<PayloadKind, readonly string[]>> = {
  text: ["/usr/include", "/usr/lib", "/usr/share"],
  program: ["/usr/lib", "/usr/bin"],
};

/**
 * Reads files of one kind, in sorted order, until they come to `budgetBytes`. A machine with too few
 * gives them again from the first on: a copy a hundred MiB away is out of every codec's window.
 *
 * @returns The contents; less than the budget by at most a file.
 */
export async function readPayload(kind: PayloadKind, budgetBytes: number): Promise<Uint8Array[]> {
  const contents: Uint8Array[] = [];
  let left = budgetBytes;
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    const leftBefore = left;
    for (const root of ROOTS[kind]) {
      for await (const path of filesBelow(root)) {
        if (left < FILE_BYTES_MIN) return contents;
        const bytes = await readIfKind(path, kind, left);
        if (bytes === undefined) continue;
        contents.push(bytes);
        left -= bytes.byteLength;
      }
    }
    if (left === leftBefore) break;
  }
  return contents;
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch {
    return; // not there, or not for us
  }
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

async function readIfKind(
  path: string,
  kind: PayloadKind,
  bytesMax: number,
): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    if (size < FILE_BYTES_MIN || size > Math.min(FILE_BYTES_MAX, bytesMax)) return undefined;
    const head = Buffer.alloc(HEAD_BYTES);
    const { bytesRead } = await file.read(head, 0, HEAD_BYTES, 0);
    return kindOf(head.subarray(0, bytesRead)) === kind ? await file.readFile() : undefined;
  } catch {
    return undefined; // went away or is not for us; there are others
  }
}

function kindOf(head: Buffer): PayloadKind | undefined {
  if (head.subarray(0, ELF_MAGIC.length).toString("latin1") === ELF_MAGIC) return "program";
  return head.includes(0) ? undefined : "text";
}
