/**
 * What must hold before anybody says that a migration has arrived (engine description, section 2):
 * every channel has passed the sync points of the main stream and no others, no page came behind the
 * last of them, no packet is half read and no byte is left.
 *
 * @module
 */
import { ChannelError, PacketError, TimeoutError } from "../errors.ts";
import type { Link, Transport } from "../net/transport.ts";
import { CHANNELS_QUIET_MS } from "../limits.ts";
import { pause } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { ReceiveState } from "./receive_state.ts";

/** The channels of a receive side, as its end is checked. */
export interface EndingChannels {
  readonly state: ReceiveState;
  readonly control: SessionControl;
  readonly transport: Transport;
  /** Their connections, which other threads read. */
  readonly links: readonly Link[];
  /** Sync points that the main stream has had. */
  readonly syncPoints: number;
}

/**
 * Ends all channels where their packets end: each reads what has come, which must be nothing.
 *
 * @param limitMs How long to wait for one of them.
 * @throws {PacketError} when anything is left over or uncovered.
 */
export function endChannels(ending: EndingChannels, limitMs: number): void {
  const { state, control, transport, links } = ending;
  const channels = links.length;
  closeChannels(ending);
  for (const link of links) transport.endReceiving(link);
  for (let ended = 0; ended < channels; ended++) {
    const result = state.ends.take(limitMs);
    control.throwIfFailed();
    if (result === "stopped") {
      throw new ChannelError("ERR_MULTIFD_CHANNEL_STOPPED", "Cannot end: the session was stopped");
    }
    if (result === "timeout") {
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_STALL",
        `Cannot end: ${channels - ended} of ${channels} channels did not end within ${limitMs} ms`,
      );
    }
  }
  requireSynced(ending);
}

/**
 * As {@linkcode endChannels}, but leaves the connections as they are: what still comes on one of them
 * is an error of its channel. For channels whose source goes on with its devices.
 *
 * @throws {PacketError} when anything is left over or uncovered.
 */
export function closeChannels(ending: EndingChannels): void {
  requireQuietChannels(ending);
  ending.state.close(ending.links.length, ending.syncPoints);
}

/**
 * As {@linkcode endChannels}, for channels that go on afterwards: they must have come to each sync
 * point and have nothing left to read. Bytes that are under way at this moment are not seen.
 *
 * A packet without pages may follow the last SYNC of a source up to QEMU 8.2, a moment later; so
 * those that are reading have a moment to come to an end.
 *
 * @throws {PacketError} when anything is left over or uncovered.
 */
export function requireQuietChannels(ending: EndingChannels): void {
  const { state, control, transport, links, syncPoints } = ending;
  const deadline = performance.now() + CHANNELS_QUIET_MS;
  for (const [channel, link] of links.entries()) {
    for (;;) {
      if (state.syncs(channel) !== syncPoints) {
        throw leftOver(
          channel,
          `it has come to sync point ${state.syncs(channel)}, the main stream has ${syncPoints}`,
        );
      }
      // In this order: what a channel takes from its socket between the two looks is seen by the second.
      const hasArrived = transport.hasArrived(link);
      const isUnderWay = state.isUnderWay(channel);
      if (!isUnderWay && !hasArrived) break;
      requireSynced(ending);
      control.throwIfFailed();
      if (performance.now() > deadline || !pause(1, control)) {
        throw leftOver(
          channel,
          isUnderWay
            ? "it is in the middle of a packet"
            : "there is more behind its last sync point",
        );
      }
    }
  }
  requireSynced(ending);
}

/** Pages that no sync point covers may be of any round, or the first of many that are missing. */
function requireSynced({ state, links }: EndingChannels): void {
  for (const channel of links.keys()) {
    if (!state.hasUnsyncedPages(channel)) continue;
    throw leftOver(channel, "it has pages behind its last sync point, none may follow that");
  }
}

/** An error about a channel whose packets do not end where the main stream does. */
export function leftOver(channel: number, reason: string): PacketError {
  return new PacketError(
    "ERR_MULTIFD_PACKET_LEFT_OVER",
    `Cannot take the RAM as complete: channel ${channel} does not end where the main stream does: ${reason}`,
    { channel },
  );
}
