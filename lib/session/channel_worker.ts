/**
 * The life of a channel's thread: connection, handshake, service, cleanup. Whatever ends it, the
 * session hears of it and every thread that may wait for this one is woken.
 *
 * @module
 */
import { DeviceQueue } from "../engine/device_queue.ts";
import type { PacketPlacer } from "../engine/packet_placer.ts";
import { ReceiveChannel } from "../engine/receive_channel.ts";
import { ReceiveState } from "../engine/receive_state.ts";
import { SendChannel } from "../engine/send_channel.ts";
import { SendState } from "../engine/send_state.ts";
import { StatisticsTable } from "../engine/statistics.ts";
import { warmUpReceiver, warmUpSender } from "../rehearsal/warm_up.ts";
import { REHEARSED_CHANNELS_MAX, WAIT_TICK_MS } from "../limits.ts";
import { BlockTable } from "../memory/block_table.ts";
import { connectTo, formatEndpoint } from "../net/endpoint.ts";
import type { Transport } from "../net/transport.ts";
import { CHANNEL_DESCRIPTOR, SessionControl } from "../sync/session_control.ts";
import type { ReceiveChannelParts, SendChannelJob } from "./channel_messages.ts";

/**
 * Runs a send channel until its session stops.
 *
 * @param transport How its bytes travel; disposed in the end.
 */
export function runSendChannel(job: SendChannelJob, transport: Transport): void {
  const { channel, endpoint, timeouts } = job;
  const control = new SessionControl(job.control);
  const state = new SendState(job.state, control);
  try {
    using connections = transport;
    using sender = new SendChannel({
      channel,
      uuid: job.uuid,
      compression: job.compression,
      detectZeroPages: job.detectZeroPages,
      bandwidth: job.bandwidth,
      state,
      control,
      blocks: new BlockTable(job.blocks),
      counters: new StatisticsTable(job.statistics).channel(channel),
    });
    if (channel < REHEARSED_CHANNELS_MAX) {
      const { compression, devices } = job;
      // As long as there is nothing else to do.
      const waiting = {
        get stopping() {
          return control.stopping || state.connectGateOpen;
        },
      };
      warmUpSender({ pageSize: job.state.pageSize, compression, devices }, waiting);
    }
    while (!state.connectGateOpen) {
      if (control.stopping) return;
      state.waitConnectGate(WAIT_TICK_MS);
    }
    const place = job.descriptors + CHANNEL_DESCRIPTOR + channel;
    const fd = connectTo(endpoint, timeouts.connectMs, control, (socket) =>
      control.registerDescriptor(place, socket),
    );
    const link = connections.connect(fd, formatEndpoint(endpoint), timeouts.connectMs, control);
    const connection = connections.attach(link, control, timeouts);
    sender.sendHandshake(connection);
    state.channelsCreated.post();
    sender.run(connection);
  } catch (error) {
    control.fail(error, { side: "source", channel, peer: formatEndpoint(endpoint) });
  }
}

/**
 * Runs a receive channel until its connection or session ends.
 *
 * @param transport As of {@linkcode runSendChannel}.
 * @param makePlacer Makes what puts pages elsewhere than into the blocks.
 */
export function runReceiveChannel(
  job: ReceiveChannelParts,
  transport: Transport,
  makePlacer?: (control: SessionControl) => PacketPlacer,
): void {
  const { channel, timeouts } = job;
  const control = new SessionControl(job.control);
  const state = new ReceiveState(job.state, control);
  try {
    using connections = transport;
    using receiver = new ReceiveChannel({
      channel,
      pageSize: job.pageSize,
      compression: job.compression,
      state,
      control,
      blocks: new BlockTable(job.blocks),
      counters: new StatisticsTable(job.statistics).channel(channel),
      devices: job.devices.map((device) => new DeviceQueue(device, control, timeouts.stallMs)),
      placer: makePlacer?.(control),
      idleMs: timeouts.idleMs,
    });
    if (channel < REHEARSED_CHANNELS_MAX) {
      const { pageSize, compression } = job;
      const connected = state.connected(channel);
      const waiting = {
        get stopping() {
          return control.stopping || connected.available;
        },
      };
      warmUpReceiver({ pageSize, compression, devices: job.devices.length > 0 }, waiting);
    }
    if (state.connected(channel).take(Infinity) !== "taken") return;
    receiver.run(connections.attach(state.link(channel), control, timeouts));
    if (!control.stopping) state.noteEnded(channel);
  } catch (error) {
    control.fail(error, { side: "destination", channel });
  }
}
