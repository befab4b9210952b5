/**
 * What a destination says before it gives a migration up, and how it sees to it that the source gets
 * it: a connection that is closed with bytes unread is reset, and a reset may overtake what was said.
 *
 * A source of this library has said in its first bytes that it understands the reason; any other one
 * is told of the failure alone.
 *
 * @module
 */
import { toErrorRecord, type PeerFailure } from "../errors.ts";
import { PAGE_SIZE_DEFAULT, PEER_REASON_MS, WAIT_TICK_MS } from "../limits.ts";
import type { Connection } from "../net/connection.ts";
import { ByteReader, type ByteSource } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { PEER_PING_VALUE } from "../wire/main_stream.ts";
import { MainStreamReader } from "../wire/main_stream_reader.ts";
import { sendReturnMessage, sendShut } from "../wire/return_path.ts";

const SHUT_FAILED = 1;

/** Who is told. */
interface ToldSource {
  readonly connection: Connection;
  /** Whether it understands a reason. */
  readonly understands: boolean;
  /** Whether it still waits for the end of the migration, and not for what goes on afterwards. */
  readonly migrates: boolean;
}

/** Tells a source with a return path that it fails here, and why, if it can still be told. */
export function tellFailure(source: ToldSource, error: unknown, phase: string): void {
  const { connection, understands, migrates } = source;
  const out = new ByteWriter(connection);
  try {
    if (understands) sendReturnMessage(out, { name: "failure", content: failureOf(error, phase) });
    if (migrates) sendShut(out, SHUT_FAILED);
    if (understands) awaitLeave(connection);
  } catch {
    // The connection is gone, and that is what the source will see.
  }
}

/**
 * Refuses a source that is not received at all; whether it understands why is in its first bytes.
 * What has not come by now is not waited for.
 */
export function refuseSource(connection: Connection, error: unknown, phase: string): void {
  if (!connection.hasUnreadBytes()) return;
  let opened = false;
  let understands = false;
  const refused = (): never => {
    throw error;
  };
  const handler = {
    configuration: () => {},
    openReturnPath: () => (opened ? refused() : void (opened = true)),
    ping: (value: number) => {
      understands = value === PEER_PING_VALUE;
      refused();
    },
    element: () => {},
    switchoverStart: refused,
    fullSection: refused,
    ramSection: refused,
    ramBlocks: refused,
    zeroPage: refused,
    syncMarker: refused,
    ramSectionEnd: refused,
  };
  try {
    new MainStreamReader(
      new ByteReader(onePiece(connection)),
      handler,
      PAGE_SIZE_DEFAULT,
    ).readAll();
  } catch {
    if (opened) tellFailure({ connection, understands, migrates: true }, error, phase);
  }
}

/** Gives what a connection has now, at once, and then ends. */
function onePiece(connection: Connection): ByteSource {
  let taken = false;
  return {
    receiveSome: (address, bytesMin, bytesMax, atBoundary) => {
      if (taken && atBoundary) return 0;
      const got = taken ? 0 : connection.receiveSome(address, 1, bytesMax, true);
      taken = true;
      if (got >= bytesMin || atBoundary) return got;
      throw new RangeError(`Cannot read start of stream: ${got} bytes are here`);
    },
  };
}

function failureOf(error: unknown, during: string): PeerFailure {
  const { code, message, phase = during, channel } = toErrorRecord(error);
  return { code, message, phase, channel };
}

/** Passes over what the source still sends until it ends the connection, as it does once it is told. */
function awaitLeave(connection: Connection): void {
  connection.endSending();
  const reader = new ByteReader(connection);
  const deadline = performance.now() + PEER_REASON_MS;
  while (performance.now() < deadline) {
    if (reader.gather(WAIT_TICK_MS) === "end") return;
    reader.discardBuffered();
  }
}
