/**
 * The thread that runs a blocking sender or receiver for a caller on the event loop.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { StatisticsTable } from "../engine/statistics.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { ReceiverSession } from "./receiver_session.ts";
import { SenderSession } from "./sender_session.ts";
import { FinalizeGate } from "./finalize_gate.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type {
  ReceiverJob,
  ReceiverReport,
  SenderCommand,
  SenderJob,
  SenderReply,
} from "./session_messages.ts";
import type { SessionWarning } from "./session_warning.ts";

/** Serves commands until the caller closes the sender. */
export async function runSender(job: SenderJob): Promise<void> {
  const control = new SessionControl(job.control);
  const port = parentPort!;
  const { promise, resolve } = Promise.withResolvers<void>();
  using sender = new SenderSession(job.config, control, new StatisticsTable(job.statistics));
  const reply = (ok: boolean, kind: SenderCommand["kind"]): void => {
    const registered = kind === "connect" || kind === "device";
    const client = registered ? sender.deviceClient : undefined;
    port.postMessage({ ok, client } satisfies SenderReply);
  };
  port.on("message", (command: SenderCommand) => {
    if (command.kind === "close") return resolve();
    try {
      runCommand(sender, command);
      reply(true, command.kind);
    } catch (error) {
      control.fail(error, { side: "source" });
      reply(false, command.kind);
      return;
    }
    // Whoever waits for the confirmation need not wait for the end of the threads.
    if (command.kind === "complete") sender[Symbol.dispose]();
  });
  await promise;
  port.close();
}

function runCommand(sender: SenderSession, command: SenderCommand): void {
  switch (command.kind) {
    case "connect":
      return sender.connect();
    case "send":
      return sender.sendRounds(command.rounds, command.roundDelayMs);
    case "range":
      return sender.queueRange(command.block, command.first, command.end);
    case "bitmap": {
      const { pages, buffer, byteOffset } = command;
      return sender.queueBitmap(command.block, new PageBitmap(pages, buffer, byteOffset));
    }
    case "pages":
      return sender.queuePages(command.block, command.pages);
    case "device":
      return sender.registerDevice(command.device);
    case "device-state": {
      const { idstr, instanceId, bytes, config } = command;
      return sender.queueDeviceState(idstr, instanceId, bytes, config);
    }
    case "sync":
      return sender.sync();
    case "complete":
      return sender.awaitConfirmation();
    case "close":
      return;
  }
}

/** Receives one migration. */
export function runReceiver(job: ReceiverJob): void {
  const control = new SessionControl(job.control);
  const report = (message: ReceiverReport): void => parentPort!.postMessage(message);
  const gate = new FinalizeGate(job.gate, control);
  const hooks = {
    onWarning: (warning: SessionWarning) => report({ kind: "warning", warning }),
    onBlocks: (blocks: readonly RamBlock[], channels: number) =>
      report({ kind: "blocks", blocks: blocks.map((block) => block.share()), channels }),
    finalize: (_blocks: readonly RamBlock[], state: GuestState | undefined) => {
      if (!job.config.finalize && state === undefined) return;
      report({ kind: "loaded", state });
      gate.wait(job.config.timeouts.idleMs);
    },
  };
  using receiver = new ReceiverSession(
    job.config,
    hooks,
    control,
    new StatisticsTable(job.statistics),
  );
  try {
    report({ kind: "listening", endpoint: receiver.listen() });
    receiver.complete();
    report({ kind: "completed" });
  } catch (error) {
    control.fail(error, { side: "destination" });
  }
}
