/**
 * Channels whose connections may be encrypted. The library that does it needs credentials from files,
 * which the small program of plain channels has no modules for.
 *
 * @module
 */
import { sessionTransport } from "../net/transport_of_session.ts";
import type { ReceiveChannelJob, SendChannelJob } from "./channel_messages.ts";
import { runReceiveChannel, runSendChannel } from "./channel_worker.ts";

/** Runs a send channel until its session stops. */
export function runTlsSendChannel(job: SendChannelJob): void {
  runSendChannel(job, sessionTransport(job));
}

/** Runs a receive channel until its connection or session ends. */
export function runTlsReceiveChannel(job: ReceiveChannelJob): void {
  runReceiveChannel(job, sessionTransport(job));
}
