/**
 * A job of threads that are to be ready for a channel.
 *
 * @module
 */
import { warmUpReceiver, warmUpSender, type ChannelPlan } from "./warm_up.ts";

/** See the module comment. */
export interface RehearsalJob {
  readonly role: "rehearse";
  readonly channel: "send-channel" | "receive-channel";
  readonly plan: ChannelPlan;
}

/** Rehearses to the end. */
export function rehearse({ channel, plan }: RehearsalJob): void {
  const warmUp = channel === "send-channel" ? warmUpSender : warmUpReceiver;
  warmUp(plan, { stopping: false });
}
