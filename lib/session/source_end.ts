/**
 * What a source does that has been told that its guest is in place: it ends its connections, or it
 * stays. Since QEMU 10.2 nothing in the stream tells which of them it will be.
 *
 * @module
 */
import { SOURCE_END_MS, WAIT_TICK_MS } from "../limits.ts";
import type { ReceivingConnection } from "../net/connection.ts";
import type { ByteWriter } from "../wire/byte_writer.ts";
import { releaseSource, sourceStays } from "../wire/waiting_source.ts";

/**
 * Waits until a source that keeps its guest ends the connection. One that stays would keep its guest
 * stopped, so it is released.
 *
 * @param limitMs How long a source may stay after that.
 * @throws {StreamError} when it does not end the connection.
 */
export function requireSourceEnd(
  connection: ReceivingConnection,
  replies: ByteWriter,
  limitMs: number,
): void {
  if (hasEndedWithin(connection, SOURCE_END_MS)) return;
  try {
    releaseSource(replies);
  } catch {
    return; // it has ended the connection
  }
  if (hasEndedWithin(connection, limitMs)) return;
  throw sourceStays("Cannot take the guest");
}

/** False as well when the source says something more, or the limit has passed. */
function hasEndedWithin(connection: ReceivingConnection, limitMs: number): boolean {
  const deadline = performance.now() + limitMs;
  while (performance.now() < deadline) {
    if (connection.isReadable(WAIT_TICK_MS)) return connection.hasEnded();
  }
  return false;
}
