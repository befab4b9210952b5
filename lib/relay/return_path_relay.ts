/**
 * The way back through a relay: forwards what the destination says to the source, message by message,
 * on a thread of its own, since the thread of the main connection waits for the source meanwhile.
 *
 * @module
 */
import { wallMs } from "../engine/statistics.ts";
import { Connection, type ConnectionLimits } from "../net/connection.ts";
import {
  MAIN_DESCRIPTOR,
  SECOND_SIDE_DESCRIPTORS,
  type SessionControl,
} from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { ReturnMessage } from "../wire/main_stream.ts";
import { hasEndedWithin, staysForCheckpoints } from "../session/source_end.ts";
import { endedByPeer, readReturnMessage, requireNothingMore } from "../wire/return_path.ts";
import type { StreamTail } from "./stream_tail.ts";

/** When the destination has confirmed, in shared memory; the time comes before the word that counts. */
export class Confirmation {
  readonly buffer: SharedArrayBuffer;
  readonly #word: Int32Array;
  readonly #time: Float64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer;
    this.#word = new Int32Array(buffer, 0, 1);
    this.#time = new Float64Array(buffer, 8, 1);
  }

  /** Whether the destination has said that everything is in place. */
  get given(): boolean {
    return Atomics.load(this.#word, 0) !== 0;
  }

  /** Wall time of the confirmation, in milliseconds; undefined before. */
  get atMs(): number | undefined {
    return this.given ? this.#time[0] : undefined;
  }

  /** Says so. Pairs with the load in `given`. */
  give(): void {
    this.#time[0] = wallMs();
    Atomics.store(this.#word, 0, 1);
  }
}

/**
 * Forwards messages until the destination ends the migration.
 *
 * @param tail What of the stream's end has been sent to the destination.
 * @throws {PeerError} when it ends with a failure, which the source has been told too, or before all
 * of the stream was sent, of which the source hears nothing but the end of its connections.
 * @throws {StreamError} for what is no message, of which nothing is forwarded, and for a source that
 * stays for checkpoints when it is told of success.
 */
export function relayReturnPath(
  control: SessionControl,
  limits: ConnectionLimits,
  confirmation: Confirmation,
  tail: StreamTail,
): void {
  const connection = (place: number): Connection =>
    new Connection(control.descriptorAt(place), control, limits);
  const reader = new ByteReader(connection(SECOND_SIDE_DESCRIPTORS + MAIN_DESCRIPTOR));
  const source = connection(MAIN_DESCRIPTOR);
  const out = new ByteWriter(source);
  for (;;) {
    const { type, value } = readReturnMessage(reader);
    const ends = type === ReturnMessage.SHUT;
    if (ends && value === 0) {
      if (!tail.isComplete) throw endedByPeer("Cannot relay migration", 0);
      requireNothingMore(reader);
    }
    // Both before the source hears of it: its next step may be to close the connection, and then
    // that would count as the first cause.
    if (ends && value === 0) confirmation.give();
    if (ends && value !== 0)
      control.record(endedByPeer("Cannot complete", value), { side: "source" });
    out.u16(type);
    out.u16(type === ReturnMessage.SWITCHOVER_ACK ? 0 : 4);
    if (type !== ReturnMessage.SWITCHOVER_ACK) out.u32(value);
    out.flush();
    if (!ends) continue;
    if (value !== 0) throw endedByPeer("Cannot complete", value);
    // Its guest is somewhere else now, so this source gets no word on which its own would go on.
    if (hasEndedWithin(source, limits.stallMs) || control.stopping) return;
    throw staysForCheckpoints("Cannot end the relay");
  }
}
