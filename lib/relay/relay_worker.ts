/**
 * The threads of a relay: the one that runs it for a caller on the event loop, and the one that
 * carries answers back.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { StatisticsTable } from "../engine/statistics.ts";
import { BlockingRelay } from "./blocking_relay.ts";
import { Confirmation, relayReturnPath } from "./return_path_relay.ts";
import { StreamTail } from "./stream_tail.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { RelayJob, RelayReport, RelayReturnJob } from "./relay_messages.ts";

/** Relays one migration. */
export function runRelay(job: RelayJob): void {
  const control = new SessionControl(job.control);
  const report = (message: RelayReport): void => parentPort!.postMessage(message);
  using relay = new BlockingRelay(
    job.config,
    control,
    new StatisticsTable(job.incoming),
    new StatisticsTable(job.outgoing),
    {
      onWarning: (warning) => report({ kind: "warning", warning }),
      onConnected: (incoming, outgoing) => report({ kind: "connected", incoming, outgoing }),
    },
  );
  try {
    report({ kind: "listening", endpoint: relay.listen() });
    relay.run();
  } catch (error) {
    control.fail(error, { side: "destination" });
  }
}

/** Carries the destination's answers to the source. */
export function runRelayReturn(job: RelayReturnJob): void {
  const control = new SessionControl(job.control);
  try {
    const confirmation = new Confirmation(job.confirmation);
    relayReturnPath(control, job.timeouts, confirmation, new StreamTail(job.tail));
  } catch (error) {
    control.fail(error, { side: "source", peer: job.peer });
  }
}
