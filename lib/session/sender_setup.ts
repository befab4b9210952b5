/**
 * The first steps of a sender on its main connection: what goes in front of the RAM, and the answer
 * that tells that the destination has all its connections.
 *
 * @module
 */
import { StreamError, TimeoutError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { pause, type WaitResult } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { PEER_PING_VALUE, PING_VALUE } from "../wire/main_stream.ts";
import type { MainStreamWriter } from "../wire/main_stream_writer.ts";
import { configurationOf } from "../wire/opaque_state.ts";
import type { ReturnPathReader } from "../wire/return_path.ts";
import type { SenderConfig } from "./session_config.ts";

/** Writes everything up to the RAM section. */
export function writeStreamStart(writer: MainStreamWriter, config: SenderConfig): void {
  const { machine, pageSize, returnPath, state, uuid } = config;
  const configuration = configurationOf(state, pageSize);
  writer.header({ ...configuration, machine, uuid: configuration.uuid && uuid });
  if (returnPath) {
    writer.openReturnPath();
    // A guest goes to a QEMU most likely, which must find nothing that is not its own.
    writer.ping(state === undefined ? PEER_PING_VALUE : PING_VALUE);
  }
  if (state !== undefined) writer.verbatim(state.early);
}

/**
 * Waits for the destination's first answer. It reads the stream only when all its channels are there,
 * so one that expects more of them than we have would let us wait for ever.
 *
 * @throws {TimeoutError} after `limitMs`.
 */
export function awaitAnswer(
  returnPath: ReturnPathReader,
  control: SessionControl,
  limitMs: number,
): void {
  const deadline = performance.now() + limitMs;
  returnPath.awaitPong((reader) => {
    if (reader.isReadable(WAIT_TICK_MS)) return true;
    control.throwIfFailed();
    if (control.stopping) throw endedError("set up");
    if (performance.now() < deadline) return false;
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_ANSWER",
      `Cannot set up: the destination did not answer within ${limitMs} ms; ` +
        "both sides must use the same number of channels",
    );
  });
}

/**
 * Waits between two rounds.
 *
 * @param hear Called once a tick: hears what the destination says meanwhile.
 */
export function awaitRound(delayMs: number, control: SessionControl, hear: () => void): void {
  const deadline = performance.now() + delayMs;
  for (let left = delayMs; left > 0; left = deadline - performance.now()) {
    if (!pause(Math.min(left, WAIT_TICK_MS), control)) throw endedError("pause between rounds");
    hear();
  }
}

/**
 * Checks how a wait on the channels has ended.
 *
 * @throws The session's first error, {StreamError} when it has ended, {TimeoutError} after the limit.
 */
export function requireTaken(
  action: string,
  result: WaitResult,
  control: SessionControl,
  limitMs: number,
): void {
  if (result === "taken") return;
  control.throwIfFailed();
  if (result === "stopped") throw endedError(action);
  throw new TimeoutError("ERR_MULTIFD_TIMEOUT", `Cannot ${action}: not done within ${limitMs} ms`);
}

/** An error about a session that has ended while `action` was under way. */
function endedError(action: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_ENDED", `Cannot ${action}: the session has ended`);
}
