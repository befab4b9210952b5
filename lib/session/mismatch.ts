/**
 * Whether a stream fits the side that it has come to, by what it says first.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { PAGE_SIZE_DEFAULT } from "../limits.ts";
import type { StreamConfiguration } from "../wire/main_stream.ts";

/** An error about a stream that does not fit. */
export function mismatch(part: string, reason: string, action = "accept migration"): StreamError {
  return new StreamError(`ERR_MULTIFD_STREAM_${part}`, `Cannot ${action}: ${reason}`);
}

/**
 * Checks what is the same for everybody who takes a stream.
 *
 * @param action What cannot be done with another one, for messages.
 * @throws {StreamError} when its pages have another size, or a capability is on.
 */
export function checkConfiguration(
  { pageBits, capabilities }: StreamConfiguration,
  pageSize: number,
  action?: string,
): void {
  const theirs = pageBits === undefined ? PAGE_SIZE_DEFAULT : 2 ** pageBits;
  if (theirs !== pageSize) {
    throw mismatch("PAGE_SIZE", `page size is ${theirs}, must be ${pageSize}`, action);
  }
  if (capabilities.length > 0) {
    throw mismatch("CAPABILITIES", `${capabilities.join(", ")} on, must be off`, action);
  }
}
