/**
 * How contenders take their turns: each round on an idle machine with warm memory, and enough rounds
 * for the runs that count. A small rented machine changes speed by a factor of two within hours, so
 * that only figures of turns side by side can be compared.
 *
 * @module
 */

import { waitIdle, warmMemory } from "./idle_machine.ts";

/** What a run has to tell. */
export interface TimedRun {
  readonly seconds: number;
  /** Whether the machine did something else as well. */
  readonly noisy: boolean;
}

/** How turns are taken. */
export interface RoundOptions {
  /** Counted runs of each. */
  readonly runs: number;
  /** At most this many further rounds in place of disturbed runs. */
  readonly extra?: number | undefined;
  /** Rounds before those that count. */
  readonly uncounted?: number | undefined;
  /** Whether each round begins with another contender; not where one makes what the next reads. */
  readonly rotate?: boolean | undefined;
  /** GiB of memory touched before a run. */
  readonly warmGib: (name: string) => number;
  readonly idleSeconds?: number | undefined;
  /** Said before each round. */
  readonly title?: string | undefined;
}

/** Runs all contenders in turn; the runs that count, by contender. */
export async function takeTurns<Run extends TimedRun>(
  contenders: ReadonlyMap<string, () => Promise<Run>>,
  options: RoundOptions,
): Promise<Map<string, Run[]>> {
  const { runs, extra = 0, uncounted = 0, rotate = true, title = "" } = options;
  const kept = new Map<string, Run[]>([...contenders.keys()].map((name) => [name, []]));
  const enough = (): boolean =>
    [...kept.values()].every((list) => list.filter((run) => !run.noisy).length >= runs);
  for (let round = 1 - uncounted; round <= runs + extra && !enough(); round++) {
    const order = [...contenders];
    if (rotate) order.push(...order.splice(0, (round - 1 + uncounted) % order.length));
    for (const [name, contend] of order) {
      const idle = await waitIdle((options.idleSeconds ?? 60) * 1000);
      await warmMemory(options.warmGib(name));
      const run = await contend();
      const counted = round > 0;
      if (counted) kept.get(name)?.push(run);
      const marks = [
        run.noisy ? "disturbed" : "",
        idle ? "" : "machine was busy",
        counted ? "" : "not counted",
      ].filter((mark) => mark !== "");
      console.error(
        `${title}round ${round}: ${name} ${run.seconds.toFixed(3)} s ${marks.join(", ")}`,
      );
    }
  }
  return kept;
}
