/**
 * Names of files and folders that are not finished yet. Whoever writes one holds a lock on it; what
 * nobody holds is swept by the next writer in the same folder.
 *
 * @module
 */
import { close, Errno, flock, fsync, openFile, unwrap } from "../../ffi/libc.ts";
import { FileLock, OpenFlag } from "../../ffi/linux.ts";
import { fileSystem } from "../../ffi/runtime/runtime.ts";
import { factsOfDescriptor } from "./file_facts.ts";

const PART_PREFIX = ".multifd-part-";

/** Short: the target's own name may leave no room for more. */
export function partName(folder: string): string {
  return `${folder}/${PART_PREFIX}${crypto.getRandomValues(new Uint8Array(6)).toHex()}`;
}

/** Removes unfinished files and folders of writers that are gone. Whatever cannot be removed stays. */
export function sweepParts(folder: string): void {
  let names: string[];
  try {
    names = fileSystem().readdirSync(folder);
  } catch {
    return; // whoever creates a file there fails with the reason
  }
  for (const name of names) {
    if (name.startsWith(PART_PREFIX)) sweepPart(`${folder}/${name}`);
  }
}

function sweepPart(part: string): void {
  const flags = OpenFlag.RDONLY | OpenFlag.NONBLOCK | OpenFlag.CLOEXEC | OpenFlag.NOFOLLOW;
  const fd = openFile(part, flags);
  if (fd < 0) return;
  try {
    const isAbandoned = flock(fd, FileLock.EXCLUSIVE | FileLock.NONBLOCK) >= 0;
    const { isRegular, isDirectory } = factsOfDescriptor("Cannot sweep", fd);
    if (isAbandoned && (isRegular || isDirectory))
      fileSystem().rmSync(part, { recursive: isDirectory });
  } catch {
    // Not ours to remove.
  } finally {
    close(fd);
  }
}

/** Waits until the names in a folder are on its device. */
export function syncFolder(action: string, path: string): void {
  const folder = unwrap(action, openFile(path, OpenFlag.RDONLY | OpenFlag.CLOEXEC));
  const status = fsync(folder);
  close(folder);
  // File systems that cannot sync a folder have nothing to sync there.
  if (status !== -Errno.EINVAL) unwrap(action, status);
}
