/**
 * The file that a listening Unix socket leaves in the file system. Nobody can listen under its name
 * again until it is gone, so a receiver removes its own, and one that was left by a process that
 * ended without doing so.
 *
 * @module
 */
import { lstatSync, readFileSync, unlinkSync } from "node:fs";
import { basename } from "node:path";

/**
 * Removes the file at `path` if it is a socket that no process of this machine has open.
 *
 * Asking the kernel for its list, instead of connecting, disturbs nobody who does listen there. The
 * list has names as they were given to `bind()`, hence relative ones count whatever their directory.
 *
 * @returns Whether it was removed.
 */
export function removeAbandonedSocket(path: string): boolean {
  try {
    if (!lstatSync(path).isSocket()) return false;
    const name = basename(path);
    const open = readFileSync("/proc/net/unix", "utf8").split("\n");
    if (open.some((line) => line.endsWith(`/${name}`) || line.endsWith(` ${name}`))) return false;
    unlinkSync(path);
    return true;
  } catch {
    return false; // then the caller's own failure to bind is what there is to tell
  }
}

/** Remembers the file that was just made at `path`; the result removes it while it is the same. */
export function socketFileRemover(path: string): () => void {
  const identity = identityOf(path);
  return () => {
    try {
      if (identity !== undefined && identityOf(path) === identity) unlinkSync(path);
    } catch {
      // Somebody else was faster.
    }
  };
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = lstatSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
