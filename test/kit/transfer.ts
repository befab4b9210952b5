/** One migration between a receiver and a sender in this process, over a real socket. */
import {
  connect,
  listen,
  type ConnectOptions,
  type ListenOptions,
  type RamBlock,
  type Receiver,
  type Sender,
  type Statistics,
} from "../../mod.ts";
import { testTimeouts } from "./limits.ts";

/** What both ends say at the end. */
interface TransferResult {
  readonly sent: Statistics;
  readonly received: Statistics;
  readonly blocks: readonly RamBlock[];
}

/** Options of both ends; the endpoint is chosen by the receiver. */
interface TransferOptions {
  /** For both ends. */
  readonly both?: Partial<Pick<ConnectOptions, "channels" | "compression" | "uuid">>;
  readonly sender: Omit<ConnectOptions, "endpoint">;
  readonly receiver?: Partial<ListenOptions>;
  /** What is sent; default everything once. */
  readonly send?: (sender: Sender, receiver: Receiver) => Promise<void>;
}

/** Sends, completes both ends and releases them. */
export async function transfer(options: TransferOptions): Promise<TransferResult> {
  const { both = {}, send = (sender: Sender) => sender.send() } = options;
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    timeouts: testTimeouts,
    ...both,
    ...options.receiver,
  });
  await using sender = await connect({
    timeouts: testTimeouts,
    ...both,
    ...options.sender,
    endpoint: receiver.endpoint,
  });
  await send(sender, receiver);
  const [sent, received] = await Promise.all([sender.complete(), receiver.complete()]);
  return { sent, received, blocks: receiver.blocks };
}
