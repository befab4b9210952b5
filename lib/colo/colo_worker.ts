/**
 * The threads that run the two sides of a COLO pair for callers on the event loop.
 *
 * @module
 */
import { StatisticsTable } from "../engine/statistics.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { ServiceLink } from "../thread/service_loop.ts";
import { BlockingPrimary } from "./blocking_primary.ts";
import { BlockingSecondary } from "./blocking_secondary.ts";
import type {
  ColoPrimaryJob,
  ColoSecondaryJob,
  PrimaryCalls,
  SecondaryCalls,
  SecondaryReports,
} from "./colo_messages.ts";
import { ColoProgress } from "./colo_progress.ts";

/** Serves the steps of a primary. */
export async function runColoPrimary(job: ColoPrimaryJob): Promise<void> {
  const link = new ServiceLink(job.service);
  using primary = new BlockingPrimary(
    job.config,
    new ColoProgress(job.progress),
    link.control,
    new StatisticsTable(job.statistics),
  );
  const calls: PrimaryCalls = {
    connect: () => primary.connect(),
    start: (rounds, roundDelayMs) => primary.start(rounds, roundDelayMs),
    request: () => primary.request(),
    commit: (bitmaps, deviceState) =>
      primary.commit(
        bitmaps.map(({ pages, buffer, byteOffset }) => new PageBitmap(pages, buffer, byteOffset)),
        deviceState,
      ),
  };
  await link.serve(calls, { context: { side: "source" } });
}

/** Keeps a copy in step until the primary goes or the caller stops the session. */
export async function runColoSecondary(job: ColoSecondaryJob): Promise<void> {
  const link = new ServiceLink<SecondaryReports>(job.service);
  const { idleMs: limitMs } = job.config.timeouts;
  using secondary = new BlockingSecondary(
    job.config,
    {
      onBlocks: (blocks, caches, channels) =>
        link.report(
          "blocks",
          blocks.map((block) => block.share()),
          caches.map((cache) => cache.share()),
          channels,
        ),
      onReady: (guest) => link.report("ready", guest),
      onRequest: () => link.ask({ action: "begin checkpoint", limitMs }, "request"),
      onCheckpoint: (checkpoint) =>
        link.ask({ action: "load checkpoint", limitMs }, "checkpoint", checkpoint),
      onLoaded: (statistics) => link.report("loaded", statistics),
    },
    new ColoProgress(job.progress),
    link.control,
    new StatisticsTable(job.statistics),
  );
  const calls: SecondaryCalls = { listen: () => secondary.listen(), run: () => secondary.run() };
  await link.serve(calls, { context: { side: "destination" }, last: "run" });
}
