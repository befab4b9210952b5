/**
 * The thread of a restore whose memory follows the guest, for a caller on the event loop.
 *
 * @module
 */
import { ServiceLink } from "../thread/service_loop.ts";
import type { InstantCalls, InstantJob, InstantReports } from "./instant_messages.ts";
import { InstantSource } from "./instant_source.ts";
import { InstantStatistics } from "./instant_statistics.ts";

/** Serves the steps of one restore. */
export async function runInstant({ config, service, statistics }: InstantJob): Promise<void> {
  const link = new ServiceLink<InstantReports>(service);
  using source = new InstantSource(config, link.control, new InstantStatistics(statistics), {
    onRunning: () => link.report("running"),
    onNotice: (text) => link.report("notice", text),
  });
  const calls: InstantCalls = {
    connect: () => source.connect(),
    serve: () => source.serve(),
    recover: (endpoint, tls) => source.recover(endpoint, tls),
  };
  await link.serve(calls, { context: { side: "source" } });
}
