/**
 * What is wrong with the arguments of a program in this directory.
 *
 * @module
 */

/** The user called a program in a way that cannot work. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** An argument that has a value which it cannot have. */
export function invalid(option: string, text: string, must: string): UsageError {
  return new UsageError(`Cannot use ${option} ${text}: must be ${must}`);
}
