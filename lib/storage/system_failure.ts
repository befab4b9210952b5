/**
 * Errors of calls that the runtime makes, in the library's own form.
 *
 * @module
 */
import { SystemError } from "../errors.ts";

/**
 * Waits for an operation of the runtime.
 *
 * @param action What the caller does, for messages.
 * @throws {SystemError} when it fails.
 */
export async function system<Result>(action: string, operation: Promise<Result>): Promise<Result> {
  try {
    return await operation;
  } catch (error) {
    throw systemError(action, error);
  }
}

/** As `system()`, of a call that blocks. */
export function systemSync<Result>(action: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    throw systemError(action, error);
  }
}

function systemError(action: string, cause: unknown): SystemError {
  const errno = (cause as NodeJS.ErrnoException).code ?? "unknown error";
  return new SystemError(`${action}: ${errno}`, { errno, cause });
}
