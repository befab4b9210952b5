/** What a process holds: threads and descriptors, as the kernel counts them. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { releaseIdle } from "../../lib/thread/idle_threads.ts";
import { LimitMs } from "./limits.ts";

/** Counts at one moment. */
export interface Resources {
  /** Threads of workers; the runtime's own come and go as it likes. */
  readonly workers: number;
  /** Open sockets, pipes not counted: a runtime opens and closes those as it likes. */
  readonly sockets: number;
  readonly descriptors: number;
}

/** What this process holds now. */
export function resourcesNow(): Resources {
  const names = readdirSync("/proc/self/fd");
  let sockets = 0;
  for (const name of names) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`).startsWith("socket:")) sockets++;
    } catch {
      // The descriptor of the listing itself.
    }
  }
  return { workers: workerThreads(), sockets, descriptors: names.length };
}

/**
 * What this process holds beside idle threads once that has not changed for a while: workers start and
 * load in the dark.
 */
export async function settledResources(): Promise<Resources> {
  await releaseIdle();
  let last = resourcesNow();
  for (let unchanged = 0; unchanged < 10;) {
    await Bun.sleep(20);
    const now = resourcesNow();
    unchanged = Bun.deepEquals(now, last) ? unchanged + 1 : 0;
    last = now;
  }
  return last;
}

/**
 * Waits until this process holds no more than `before`, idle threads apart, which it ends.
 *
 * @throws {Error} naming what is left over after `limitMs`.
 */
export async function expectReleased(
  before: Resources,
  limitMs: number = LimitMs.release,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    await releaseIdle();
    const now = resourcesNow();
    if (
      now.workers <= before.workers &&
      now.sockets <= before.sockets &&
      now.descriptors <= before.descriptors
    ) {
      return;
    }
    if (performance.now() > deadline) {
      throw new Error(`Not released: ${JSON.stringify({ before, now })}`);
    }
    await Bun.sleep(20);
  }
}

function workerThreads(): number {
  return readdirSync("/proc/self/task").filter((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, "utf8") === "Worker\n";
    } catch {
      return false; // it has ended since it was listed
    }
  }).length;
}
