/**
 * The thread of a relay's incoming channel: a receive channel whose packets go on to send channels.
 *
 * @module
 */
import { methodFlag } from "../codec/registry.ts";
import { SendState } from "../engine/send_state.ts";
import type { Transport } from "../net/transport.ts";
import { runReceiveChannel } from "../session/channel_worker.ts";
import type { RelayChannelJob } from "./relay_messages.ts";
import { RelayPlacer } from "./relay_placer.ts";

/**
 * Runs the channel until its connection or session ends.
 *
 * @param transport How its bytes travel; disposed in the end.
 */
export function runRelayChannel(job: RelayChannelJob, transport: Transport): void {
  const { channel, pageSize, compression, timeouts, outgoing, stage } = job;
  runReceiveChannel(job, transport, (control) => {
    const state = new SendState(outgoing, control);
    return new RelayPlacer(
      { pageSize, methodFlag: methodFlag(compression.method) },
      { state, control, client: channel, stage, limitMs: timeouts.stallMs },
    );
  });
}
