/**
 * How many channels a session has, by its options.
 *
 * @module
 */
import { processorCount } from "../../ffi/runtime/runtime.ts";
import { CHANNELS_MAX } from "../limits.ts";

/**
 * Checks a number of channels.
 *
 * @param or What else it may be, for messages.
 * @throws {RangeError} for one that cannot be.
 */
export function checkChannels(channels = 2, or = ""): void {
  if (Number.isInteger(channels) && channels >= 1 && channels <= CHANNELS_MAX) return;
  throw new RangeError(`Cannot use ${channels} channels: must be 1 to ${CHANNELS_MAX}${or}`);
}

/** Number of channels by option; undefined for `auto`. */
export function channelsOf(channels: number | "auto" = 2): number | undefined {
  if (channels === "auto") return undefined;
  checkChannels(channels, " or auto");
  return channels;
}

/** Number of channels of a sender. */
export function senderChannels(channels: number | "auto" | undefined): number {
  return channelsOf(channels) ?? automaticChannels();
}

function automaticChannels(): number {
  return Math.min(16, Math.max(2, 2 * processorCount()));
}
