/**
 * The thread that runs a blocking sender or receiver for a caller on the event loop.
 *
 * @module
 */
import { StatisticsTable } from "../engine/statistics.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { ServiceLink } from "../thread/service_loop.ts";
import { ReceiverSession } from "./receiver_session.ts";
import { SenderSession } from "./sender_session.ts";
import type {
  ReceiverCalls,
  ReceiverJob,
  ReceiverReports,
  SenderCalls,
  SenderJob,
} from "./session_messages.ts";

/** Serves the steps of a sender. */
export async function runSender({ config, service, statistics }: SenderJob): Promise<void> {
  const link = new ServiceLink(service);
  using sender = new SenderSession(config, link.control, new StatisticsTable(statistics));
  const calls: SenderCalls = {
    connect: () => {
      sender.connect();
      return sender.deviceClient;
    },
    send: (rounds, roundDelayMs) => sender.sendRounds(rounds, roundDelayMs),
    range: (block, first, end) => sender.queueRange(block, first, end),
    bitmap: (block, ...bitmap) => sender.queueBitmap(block, new PageBitmap(...bitmap)),
    pages: (block, pages) => sender.queuePages(block, pages),
    device: (device) => {
      sender.registerDevice(device);
      return sender.deviceClient;
    },
    deviceState: (...state) => sender.queueDeviceState(...state),
    sync: () => sender.sync(),
    // Whoever waits for the confirmation need not wait for the end of the threads.
    complete: () => sender.awaitConfirmation(),
  };
  await link.serve(calls, { context: { side: "source" }, last: "complete" });
}

/** Receives one migration. */
export async function runReceiver({ config, service, statistics }: ReceiverJob): Promise<void> {
  const link = new ServiceLink<ReceiverReports>(service);
  const lastStep = { action: "finalize", limitMs: config.timeouts.idleMs };
  using receiver = new ReceiverSession(
    config,
    {
      onWarning: (warning) => link.report("warning", warning),
      onBlocks: (blocks, channels) =>
        link.report(
          "blocks",
          blocks.map((block) => block.share()),
          channels,
        ),
      finalize: (_blocks, state) => {
        if (config.finalize || state !== undefined) link.ask(lastStep, "loaded", state);
      },
    },
    link.control,
    new StatisticsTable(statistics),
  );
  const calls: ReceiverCalls = {
    listen: () => receiver.listen(),
    complete: () => void receiver.complete(),
  };
  await link.serve(calls, { context: { side: "destination" }, last: "complete" });
}
