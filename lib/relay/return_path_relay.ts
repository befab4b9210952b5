/**
 * The way back through a relay: forwards what the destination says to the source, message by message,
 * on a thread of its own, since the thread of the main connection waits for the source meanwhile.
 *
 * @module
 */
import { wallMs } from "../engine/statistics.ts";
import type { ReceivingConnection, SendingConnection } from "../net/connection.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { sourceStays } from "../wire/waiting_source.ts";
import { explainLoss } from "../session/lost_destination.ts";
import {
  endedByPeer,
  failedPeer,
  readReturnMessage,
  requireNothingMore,
  ReturnPathReader,
  sendReturnMessage,
} from "../wire/return_path.ts";
import type { StreamTail } from "./stream_tail.ts";

const GIVEN = 0;
const UNDERSTANDS = 1;
const TOLD = 2;

/**
 * When the destination has confirmed, in shared memory; the time comes before the word that counts.
 * And what the two threads that speak to the source know of it.
 */
export class Confirmation {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #time: Float64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(24)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, 3);
    this.#time = new Float64Array(buffer, 16, 1);
  }

  /** Whether the destination has said that everything is in place. */
  get given(): boolean {
    return Atomics.load(this.#words, GIVEN) !== 0;
  }

  /** Wall time of the confirmation, in milliseconds; undefined before. */
  get atMs(): number | undefined {
    return this.given ? this.#time[0] : undefined;
  }

  /** Says so. Pairs with the load in `given`. */
  give(): void {
    this.#time[0] = wallMs();
    Atomics.store(this.#words, GIVEN, 1);
  }

  /** Whether the source understands the reason of a failure. */
  get sourceUnderstands(): boolean {
    return Atomics.load(this.#words, UNDERSTANDS) !== 0;
  }

  set sourceUnderstands(understands: boolean) {
    Atomics.store(this.#words, UNDERSTANDS, understands ? 1 : 0);
  }

  /** Whether the source has been told of a failure. */
  get sourceTold(): boolean {
    return Atomics.load(this.#words, TOLD) !== 0;
  }

  /** Says so. */
  tellSource(): void {
    Atomics.store(this.#words, TOLD, 1);
  }
}

/** The two connections that answers travel on, of which other threads have the other directions. */
interface ReturnWays {
  readonly source: SendingConnection;
  readonly destination: ReceivingConnection;
  /** How long the source may keep its connection when all is said. */
  readonly stallMs: number;
}

/**
 * Forwards messages until the destination ends the migration; the reason of a failure to a source that
 * understands it.
 *
 * @param tail What of the stream's end has been sent to the destination.
 * @throws {PeerError} when it ends with a failure, which the source has been told too, or before all
 * of the stream was sent, of which the source hears nothing but the end of its connections.
 * @throws {StreamError} for what is no message, of which nothing is forwarded, and for a source that
 * stays for checkpoints when it is told of success.
 */
export function relayReturnPath(
  control: SessionControl,
  ways: ReturnWays,
  confirmation: Confirmation,
  tail: StreamTail,
  peer: string,
): void {
  const reader = new ByteReader(ways.destination);
  try {
    forward({ control, confirmation, tail, peer }, reader, ways.source, ways.stallMs);
  } catch (error) {
    // A channel to the destination may have broken first, while the reason was on its way here.
    const first = control.error;
    const better = explainLoss(
      first?.side === "destination" ? undefined : (first ?? error),
      new ReturnPathReader(reader),
      !confirmation.given,
    );
    if (better !== undefined) control.supersede(better, { side: "source", peer });
    throw error;
  }
}

interface Forwarding {
  readonly control: SessionControl;
  readonly confirmation: Confirmation;
  readonly tail: StreamTail;
  readonly peer: string;
}

function forward(
  { control, confirmation, tail, peer }: Forwarding,
  reader: ByteReader,
  source: SendingConnection,
  stallMs: number,
): void {
  const out = new ByteWriter(source);
  for (;;) {
    const message = readReturnMessage(reader);
    if (message.name === "failure") {
      control.supersede(failedPeer("Cannot relay migration", message.content), {
        side: "source",
        peer,
      });
      if (!confirmation.sourceUnderstands) continue;
    }
    const ends = message.name === "shut";
    const failed = ends && message.content !== 0;
    if (ends && !failed) {
      if (!tail.isComplete) throw endedByPeer("Cannot relay migration", 0);
      requireNothingMore(reader);
    }
    // Both before the source hears of it: its next step may be to close the connection, and then
    // that would count as the first cause.
    if (ends && !failed) confirmation.give();
    if (failed)
      control.record(endedByPeer("Cannot relay migration", message.content), {
        side: "source",
        peer,
      });
    sendReturnMessage(out, message);
    if (!ends) continue;
    confirmation.tellSource();
    if (failed) throw endedByPeer("Cannot relay migration", message.content);
    // Its guest is somewhere else now, so this source gets no word on which its own would go on.
    const deadline = performance.now() + stallMs;
    while (performance.now() < deadline) {
      if (source.isEndedByPeer(WAIT_TICK_MS) || control.stopping) return;
    }
    throw sourceStays("Cannot end the relay");
  }
}
