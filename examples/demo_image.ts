/**
 * A memory image like a guest's, made of what is on this machine: files under /usr in pieces, as a
 * page cache has them, between zero pages and pages of random data.
 *
 * @module
 */
import { open, opendir, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { throwIfCancelled } from "./program.ts";

/** Folders that every Debian has: programs, libraries, data. Files are taken from each in turn. */
const FOLDERS = ["/usr/bin", "/usr/lib", "/usr/share"];

/** The pattern that repeats: of 9 MiB, 6 are files, 2 zero and 1 random. */
const FILE_BYTES = 6 * 1_048_576;
const ZERO_BYTES = 2 * 1_048_576;
const RANDOM_BYTES = 1_048_576;

/** One large program must not be the whole image. */
const FILE_BYTES_MAX = 4 * 1_048_576;

const PAGE_BYTES = 4096;

/** Writes an image of `bytes` bytes, rounded up to whole pages; returns the real length. */
export async function writeDemoImage(
  path: string,
  bytes: number,
  signal: AbortSignal,
): Promise<number> {
  await using image = await open(path, "w");
  await using content = new FileContent();
  const total = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
  await image.truncate(total);
  const data = new Uint8Array(FILE_BYTES);
  const random = new Uint8Array(65_536);
  for (let at = 0; at < total; at += ZERO_BYTES) {
    throwIfCancelled(signal);
    const fileBytes = Math.min(FILE_BYTES, total - at);
    await content.fill(data.subarray(0, fileBytes));
    await image.write(data, 0, fileBytes, at);
    at += fileBytes;
    for (let left = Math.min(RANDOM_BYTES, total - at); left > 0; left -= random.byteLength) {
      const bytesNow = Math.min(random.byteLength, left);
      await image.write(crypto.getRandomValues(random), 0, bytesNow, at);
      at += bytesNow;
    }
  }
  return total;
}

/** The content of files, one after the other, each from a page border as in a page cache. */
class FileContent implements AsyncDisposable {
  #files = filesOfFolders();
  #open: FileHandle | undefined;
  #openBytes = 0;
  #filesRead = 0;

  /** Fills all of `target`; starts again from the first file when all have been read. */
  async fill(target: Uint8Array): Promise<void> {
    for (let at = 0; at < target.byteLength;) {
      this.#open ??= await this.#next();
      const left = Math.min(target.byteLength - at, FILE_BYTES_MAX - this.#openBytes);
      const { bytesRead } = await this.#open.read(target, at, left, this.#openBytes);
      this.#openBytes += bytesRead;
      if (bytesRead < left || this.#openBytes === FILE_BYTES_MAX) await this.#close();
      const end = Math.ceil((at + bytesRead) / PAGE_BYTES) * PAGE_BYTES;
      target.fill(0, at + bytesRead, end);
      at = end;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
    await this.#files.return(undefined);
  }

  async #next(): Promise<FileHandle> {
    for (;;) {
      const next = await this.#files.next();
      if (next.done) {
        if (this.#filesRead === 0) throw new Error("Cannot make an image: /usr has no files");
        this.#files = filesOfFolders();
        continue;
      }
      try {
        const file = await open(next.value);
        this.#filesRead++;
        return file;
      } catch {
        // Unreadable for this user; there are others.
      }
    }
  }

  async #close(): Promise<void> {
    await this.#open?.close();
    this.#open = undefined;
    this.#openBytes = 0;
  }
}

/** Paths of all regular files, one of each folder in turn. */
async function* filesOfFolders(): AsyncGenerator<string, undefined> {
  let walks = FOLDERS.map((folder) => filesBelow(folder));
  while (walks.length > 0) {
    const ended = new Set<AsyncGenerator<string>>();
    for (const walk of walks) {
      const next = await walk.next();
      if (next.done) ended.add(walk);
      else yield next.value;
    }
    walks = walks.filter((walk) => !ended.has(walk));
  }
  return undefined;
}

async function* filesBelow(folder: string): AsyncGenerator<string, void> {
  let entries;
  try {
    entries = await opendir(folder);
  } catch {
    return; // not there, or not for this user
  }
  const folders: string[] = [];
  for await (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isFile()) yield path;
    if (entry.isDirectory()) folders.push(path);
  }
  for (const path of folders) yield* filesBelow(path);
}
