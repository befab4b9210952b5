/**
 * The file that a listening Unix socket leaves in the file system. Nobody can listen under its name
 * again until it is gone, so a receiver removes its own, and one that was left by a process that
 * ended without doing so.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, connect, Errno, socket } from "../../ffi/libc.ts";
import { AddressFamily, SocketType } from "../../ffi/linux.ts";
import { fileSystem } from "../../ffi/runtime/runtime.ts";
import type { SocketAddress } from "./socket_address.ts";

/**
 * Removes the file at `path` (which `address` means) if it is a socket that nobody listens on.
 *
 * The kernel's list is looked at first: that disturbs nobody, and knows sockets that do not listen
 * yet. It has those of this network namespace only, and the names that were given to `bind()`, hence
 * relative ones count whatever their directory. Then connecting decides, which a listener anywhere
 * sees as one connection that ends at once.
 *
 * @returns Whether it was removed.
 */
export function removeAbandonedSocket(path: string, address: SocketAddress): boolean {
  try {
    if (!fileSystem().lstatSync(path).isSocket()) return false;
    const name = path.slice(path.lastIndexOf("/") + 1);
    const open = fileSystem().readFileSync("/proc/net/unix", "utf8").split("\n");
    if (open.some((line) => line.endsWith(`/${name}`) || line.endsWith(` ${name}`))) return false;
    if (!isRefused(address)) return false;
    fileSystem().unlinkSync(path);
    return true;
  } catch {
    return false; // then the caller's own failure to bind is what there is to tell
  }
}

/** Whether a connection is refused, and not only kept waiting by a listener that is busy. */
function isRefused({ bytes }: SocketAddress): boolean {
  const arena = new Arena(bytes.byteLength);
  arena.u8.set(bytes);
  const flags = SocketType.STREAM | SocketType.NONBLOCK | SocketType.CLOEXEC;
  const fd = socket(AddressFamily.UNIX, flags, 0);
  if (fd < 0) return false;
  try {
    return connect(fd, arena.address, bytes.byteLength) === -Errno.ECONNREFUSED;
  } finally {
    close(fd);
  }
}

/** Remembers the file that was just made at `path`; the result removes it while it is the same. */
export function socketFileRemover(path: string): () => void {
  const identity = identityOf(path);
  return () => {
    try {
      if (identity !== undefined && identityOf(path) === identity) fileSystem().unlinkSync(path);
    } catch {
      // Somebody else was faster.
    }
  };
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = fileSystem().lstatSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
