/**
 * The threads that run the two sides of a COLO pair for callers on the event loop.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { BlockingPrimary } from "./blocking_primary.ts";
import { BlockingSecondary } from "./blocking_secondary.ts";
import type {
  ColoPrimaryJob,
  ColoSecondaryJob,
  PrimaryCommand,
  PrimaryReply,
  SecondaryReport,
} from "./colo_messages.ts";
import { ColoProgress } from "./colo_progress.ts";
import { StatisticsTable } from "../engine/statistics.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { FinalizeGate } from "../session/finalize_gate.ts";
import { SessionControl } from "../sync/session_control.ts";

/** Serves commands until the caller closes the primary. */
export async function runColoPrimary(job: ColoPrimaryJob): Promise<void> {
  const control = new SessionControl(job.control);
  const port = parentPort!;
  const { promise, resolve } = Promise.withResolvers<void>();
  const reply = (answer: PrimaryReply): void => port.postMessage(answer);
  using primary = new BlockingPrimary(
    job.config,
    new ColoProgress(job.progress),
    control,
    new StatisticsTable(job.statistics),
  );
  port.on("message", (command: PrimaryCommand) => {
    if (command.kind === "close") return resolve();
    try {
      reply({ ok: true, transferMs: runCommand(primary, command) });
    } catch (error) {
      control.fail(error, { side: "source" });
      reply({ ok: false });
    }
  });
  await promise;
  port.close();
}

function runCommand(primary: BlockingPrimary, command: PrimaryCommand): number | undefined {
  switch (command.kind) {
    case "connect":
      primary.connect();
      return undefined;
    case "start":
      primary.start(command.rounds, command.roundDelayMs);
      return undefined;
    case "request":
      primary.request();
      return undefined;
    case "commit":
      return primary.commit(
        command.bitmaps.map(
          ({ pages, buffer, byteOffset }) => new PageBitmap(pages, buffer, byteOffset),
        ),
        command.deviceState,
      );
    case "close":
      return undefined;
  }
}

/** Keeps a copy in step until the primary goes or the caller stops the session. */
export function runColoSecondary(job: ColoSecondaryJob): void {
  const control = new SessionControl(job.control);
  const gate = new FinalizeGate(job.gate, control);
  const { idleMs } = job.config.timeouts;
  const report = (message: SecondaryReport): void => parentPort!.postMessage(message);
  using secondary = new BlockingSecondary(
    job.config,
    {
      onBlocks: (blocks, caches, channels) =>
        report({
          kind: "blocks",
          blocks: blocks.map((block) => block.share()),
          caches: caches.map((cache) => cache.share()),
          channels,
        }),
      onReady: (guest) => report({ kind: "ready", guest }),
      onRequest: () => {
        report({ kind: "request" });
        gate.wait(idleMs);
      },
      onCheckpoint: (checkpoint) => {
        report({ kind: "checkpoint", checkpoint });
        gate.wait(idleMs);
      },
      onLoaded: (statistics) => report({ kind: "loaded", statistics }),
    },
    new ColoProgress(job.progress),
    control,
    new StatisticsTable(job.statistics),
  );
  try {
    report({ kind: "listening", endpoint: secondary.listen() });
    secondary.run();
  } catch (error) {
    control.fail(error, { side: "destination" });
  }
}
