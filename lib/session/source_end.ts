/**
 * What a source does that has been told that its guest is in place: it ends its connections, or, with
 * QEMU's capability x-colo, it goes on to checkpoints. Since QEMU 10.2 nothing in the stream tells
 * which of them it will be.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import { SOURCE_END_MS, WAIT_TICK_MS } from "../limits.ts";
import type { ReceivingConnection } from "../net/connection.ts";
import type { ByteWriter } from "../wire/byte_writer.ts";
import { ColoMessage, sendColoMessage } from "../wire/colo_message.ts";

/**
 * Waits until a source that keeps its guest ends the connection.
 *
 * One that waits for checkpoints has stopped its guest, and would keep it so. The word for "ready"
 * lets it run; any other source does not read it any more.
 *
 * @param limitMs How long a source may stay after that word.
 * @throws {StreamError} when it does not end the connection.
 */
export function requireSourceEnd(
  connection: ReceivingConnection,
  replies: ByteWriter,
  limitMs: number,
): void {
  if (hasEndedWithin(connection, SOURCE_END_MS)) return;
  try {
    sendColoMessage(replies, ColoMessage.CHECKPOINT_READY);
  } catch {
    return; // it has ended the connection
  }
  if (hasEndedWithin(connection, limitMs)) return;
  throw staysForCheckpoints("Cannot take the guest");
}

/** An error about a source that does not end its connection. */
export function staysForCheckpoints(action: string): StreamError {
  return new StreamError(
    "ERR_MULTIFD_STREAM_COLO",
    `${action}: the source goes on to checkpoints (capability x-colo), which must be off; ` +
      "it ends them by x-colo-lost-heartbeat",
  );
}

/** False as well when the source says something more, or the limit has passed. */
function hasEndedWithin(connection: ReceivingConnection, limitMs: number): boolean {
  const deadline = performance.now() + limitMs;
  while (performance.now() < deadline) {
    if (connection.isReadable(WAIT_TICK_MS)) return connection.hasEnded();
  }
  return false;
}
