/**
 * The threads that a session is known to need for its channels and devices, so that they start when
 * its own thread does.
 *
 * @module
 */
import { LOAD_ROLE, SAVE_ROLE } from "../device/device_messages.ts";
import type { ThreadCrew } from "../thread/idle_threads.ts";
import { channelProgram } from "./channel_messages.ts";
import type { ReceiverConfig, SenderConfig, SessionConfig } from "./session_config.ts";

/** Threads of a sender. */
export function senderCrews(config: SenderConfig): readonly ThreadCrew[] {
  const saves = config.devices.filter(({ save }) => save !== undefined).length;
  return [
    channelCrew("send-channel", config, config.channels),
    { program: "entry", role: SAVE_ROLE, count: saves },
  ];
}

/** Threads of a receiver. */
export function receiverCrews(config: ReceiverConfig): readonly ThreadCrew[] {
  return [
    channelCrew("receive-channel", config, config.channels),
    { program: "entry", role: LOAD_ROLE, count: config.devices.length },
  ];
}

/** Threads of channels; where their number is not known they start when they are connected. */
export function channelCrew(
  role: string,
  { tls }: SessionConfig,
  channels: number | undefined,
): ThreadCrew {
  return { program: channelProgram(tls), role, count: channels ?? 0 };
}
