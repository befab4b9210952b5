/**
 * Files that are complete or not there, written by functions: made durable, then given their name.
 *
 * @module
 */
import { CancelledError } from "../errors.ts";
import { OutputFile } from "./output_file.ts";

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
  write: (file: OutputFile) => Promise<void>,
): Promise<void> {
  using output = new OutputFile(path, { action, replaceOnly: true });
  await write(output);
  await cancellable(output.sync(), action, signal);
  output.commit(true);
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
