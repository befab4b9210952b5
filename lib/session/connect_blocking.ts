/**
 * The way to a sender for threads that may block.
 *
 * @module
 */
import { BlockingSender } from "./blocking_sender.ts";
import { senderConfig, type ConnectOptions } from "./options.ts";

/**
 * Makes a connected sender for a thread that may block, such as a worker.
 *
 * @param options As for `connect()`; the host must be numeric, and `signal` is not looked at since
 * a blocked thread sees no events.
 * @throws {MultifdError} when connecting fails; everything is released then.
 */
export function connectBlocking(options: ConnectOptions): BlockingSender {
  const sender = new BlockingSender(senderConfig(options));
  try {
    sender.connect();
    return sender;
  } catch (error) {
    sender[Symbol.dispose]();
    throw error;
  }
}
