/**
 * The threads of a relay: the one that runs it for a caller on the event loop, and the one that
 * carries answers back.
 *
 * @module
 */
import { sessionTransport } from "../net/transport_of_session.ts";
import { StatisticsTable } from "../engine/statistics.ts";
import { BlockingRelay } from "./blocking_relay.ts";
import { Confirmation, relayReturnPath } from "./return_path_relay.ts";
import { StreamTail } from "./stream_tail.ts";
import { SessionControl } from "../sync/session_control.ts";
import { ServiceLink } from "../thread/service_loop.ts";
import type { RelayCalls, RelayJob, RelayReports, RelayReturnJob } from "./relay_messages.ts";

/** Relays one migration. */
export async function runRelay({ config, service, incoming, outgoing }: RelayJob): Promise<void> {
  const link = new ServiceLink<RelayReports>(service);
  using relay = new BlockingRelay(
    config,
    link.control,
    new StatisticsTable(incoming),
    new StatisticsTable(outgoing),
    {
      onWarning: (warning) => link.report("warning", warning),
      onConnected: (...channels) => link.report("connected", ...channels),
    },
  );
  const calls: RelayCalls = { listen: () => relay.listen(), run: () => relay.run() };
  await link.serve(calls, { context: { side: "destination" }, last: "run" });
}

/** Carries the destination's answers to the source. */
export function runRelayReturn(job: RelayReturnJob): void {
  const control = new SessionControl(job.control);
  try {
    const { source, destination, timeouts } = job;
    using toSource = sessionTransport(source);
    using toDestination = sessionTransport(destination);
    const ways = {
      source: toSource.attachSending(source.half, control, timeouts),
      destination: toDestination.attachReceiving(destination.half, control, timeouts),
      stallMs: timeouts.stallMs,
    };
    const confirmation = new Confirmation(job.confirmation);
    relayReturnPath(control, ways, confirmation, new StreamTail(job.tail), job.peer);
  } catch (error) {
    control.fail(error, { side: "source", peer: job.peer });
  }
}
