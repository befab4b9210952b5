/**
 * Writes the archive format of an initial RAM disk ("newc" of cpio), in memory and without the files
 * having to lie in a folder of that shape. All times and numbers are fixed, so that the same files
 * make the same bytes.
 *
 * An entry, all numbers as eight hex digits of ASCII:
 *
 *     bytes  0..5    070701
 *     bytes  6..109  inode, mode, uid, gid, links, mtime, file size, four device numbers,
 *                    name size with its NUL, check sum (0)
 *     then           name and NUL, padded to 4 bytes; the file, padded to 4 bytes
 *
 * @module
 */

/** A file or, without `bytes`, a folder. Folders must come before what they contain. */
export interface CpioEntry {
  /** Path without a leading slash. */
  readonly path: string;
  readonly bytes?: Uint8Array | undefined;
  readonly executable?: boolean | undefined;
}

const HEADER_BYTES = 110;
const FOLDER_MODE = 0o040755;
const FILE_MODE = 0o100644;
const EXECUTABLE_MODE = 0o100755;

/** Makes an archive of the entries, in their order. */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array<ArrayBuffer> {
  const all: readonly CpioEntry[] = [...entries, { path: "TRAILER!!!", bytes: new Uint8Array() }];
  const size = all.reduce((sum, entry) => sum + entryBytes(entry), 0);
  const archive = Buffer.alloc(size); // the padding is zero
  let at = 0;
  for (const [index, entry] of all.entries()) {
    archive.write(header(entry, index + 1), at, "latin1");
    archive.write(entry.path, at + HEADER_BYTES, "utf8");
    const nameEnd = at + padded(HEADER_BYTES + nameBytes(entry));
    archive.set(entry.bytes ?? [], nameEnd);
    at += entryBytes(entry);
  }
  return archive;
}

function header(entry: CpioEntry, inode: number): string {
  const fileMode = entry.executable === true ? EXECUTABLE_MODE : FILE_MODE;
  const mode = entry.bytes === undefined ? FOLDER_MODE : fileMode;
  const size = entry.bytes?.byteLength ?? 0;
  const fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, nameBytes(entry), 0];
  return `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
}

function entryBytes(entry: CpioEntry): number {
  return padded(HEADER_BYTES + nameBytes(entry)) + padded(entry.bytes?.byteLength ?? 0);
}

function nameBytes({ path }: CpioEntry): number {
  return Buffer.byteLength(path) + 1;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
