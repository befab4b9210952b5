/**
 * Files that are complete or not there: written under another name, made durable, then renamed.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { open, realpath, rename, stat, unlink, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CancelledError, MultifdError, SystemError } from "../errors.ts";

/**
 * Writes a file at `path`, which appears under its name only when all of it is on the device; a file
 * of that name is replaced then and untouched before.
 *
 * @param action What the caller does, for messages.
 * @param write Writes the content; the file is made durable afterwards.
 * @throws {SystemError} when writing fails, for example because the disk is full.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when `path` is something else than a file.
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function replaceFile(
  path: string,
  action: string,
  signal: AbortSignal | undefined,
  write: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const target = await replaceableFile(path, action);
  // Short and in the same directory: the target's own name may leave no room for a suffix.
  const aside = join(dirname(target), `.multifd-${randomBytes(6).toString("hex")}.part`);
  // Guest memory holds secrets, so nobody but the owner gets in.
  const file = await system(action, open(aside, "wx", 0o600));
  try {
    try {
      await write(file);
      await cancellable(system(action, file.sync()), action, signal);
    } finally {
      await file.close();
    }
    await system(action, rename(aside, target));
  } catch (error) {
    await unlink(aside).catch(() => {}); // the first error is the one to tell
    throw error;
  }
  await syncDirectory(dirname(target), action);
}

/** Writes all of `bytes` at `position`. */
export async function writeBytes(
  file: FileHandle,
  bytes: Uint8Array,
  position: number,
  action: string,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await system(
      action,
      file.write(bytes, done, bytes.byteLength - done, position + done),
    );
    done += bytesWritten;
  }
}

/** Where the file will be in the end: links are followed, so that they stay. */
async function replaceableFile(path: string, action: string): Promise<string> {
  let facts;
  try {
    facts = await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw systemError(action, error);
    return join(await system(action, realpath(dirname(path))), basename(path));
  }
  if (!facts.isFile()) throw imageError(`${action}: it exists and must be a regular file`);
  return system(action, realpath(path));
}

/** Makes a rename last. File systems that cannot sync a directory have nothing to sync there. */
async function syncDirectory(path: string, action: string): Promise<void> {
  await using directory = await system(action, open(path, "r"));
  await directory.sync().catch(() => {});
}

/** Lets a cancelled caller go on while the kernel still finishes `operation`. */
async function cancellable(
  operation: Promise<void>,
  action: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelled(action, signal));
  operation.catch(() => {}); // nobody may be left to hear of it
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    throwIfAborted(action, signal);
    await Promise.race([operation, aborted]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** @throws {CancelledError} once `signal` is aborted. */
export function throwIfAborted(action: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(action, signal);
}

function cancelled(action: string, signal: AbortSignal | undefined): CancelledError {
  const cause: unknown = signal?.reason;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new CancelledError("ERR_MULTIFD_CANCELLED", `${action}: cancelled (${reason})`, { cause });
}

/** Turns Node's errors into ones that say what was attempted. */
export async function system<Result>(action: string, operation: Promise<Result>): Promise<Result> {
  try {
    return await operation;
  } catch (error) {
    throw systemError(action, error);
  }
}

function systemError(action: string, error: unknown): SystemError {
  const errno = (error as NodeJS.ErrnoException).code ?? "unknown error";
  return new SystemError(`${action}: ${errno}`, { errno, cause: error });
}

/** An error about a file that is not what it must be. */
export function imageError(message: string): MultifdError {
  return new MultifdError("ERR_MULTIFD_IMAGE", message);
}
