/**
 * Program of the threads that need nothing but shared memory and native functions. A rule in the
 * tests keeps it small and free of the runtime's modules, which would take longer to load than all
 * the rest.
 *
 * @module
 */
import { transportOf } from "./net/endpoint.ts";
import { runPageWorker, type PageWorkerJob } from "./memory/page_worker.ts";
import { runRelayChannel } from "./relay/relay_channel_worker.ts";
import type { RelayChannelJob } from "./relay/relay_messages.ts";
import { rehearse, type RehearsalJob } from "./rehearsal/rehearse.ts";
import type { GetReadyJob } from "./session/prepare.ts";
import type { ReceiveChannelJob, SendChannelJob } from "./session/channel_messages.ts";
import { runReceiveChannel, runSendChannel } from "./session/channel_worker.ts";
import { serveJobs, unknownRole } from "./thread/serve_jobs.ts";

type ChannelProgramJob =
  SendChannelJob | ReceiveChannelJob | RelayChannelJob | PageWorkerJob | RehearsalJob | GetReadyJob;

serveJobs((job: ChannelProgramJob) => {
  switch (job.role) {
    case "send-channel":
      return runSendChannel(job, transportOf(job.endpoint));
    case "receive-channel":
      return runReceiveChannel(job, transportOf(job.endpoint));
    case "relay-channel":
      return runRelayChannel(job, transportOf(job.endpoint));
    case "page-worker":
      return runPageWorker(job);
    case "rehearse":
      return rehearse(job);
    case "get-ready":
      return; // it has loaded
    default:
      return unknownRole(job);
  }
});
