/**
 * Counts rounds where pages arrive. The stream says nothing of rounds, only that everything so far
 * must be in place; what came between two such points is a round if it has pages.
 *
 * @module
 */
import type { MainCounters, StatisticsTable } from "./statistics.ts";

/** See the module comment. Used by the thread of the main connection. */
export class RoundCounter {
  readonly #arriving: StatisticsTable;
  readonly #counters: readonly MainCounters[];
  #pages = 0;

  /**
   * @param arriving Counters of the channels that pages arrive on.
   * @param counters Where to count the rounds.
   */
  constructor(arriving: StatisticsTable, counters: readonly MainCounters[]) {
    this.#arriving = arriving;
    this.#counters = counters;
  }

  /** To be called at each sync point, while all of the channels stand there. */
  syncPoint(channels: number): void {
    const { normalPages, zeroPages } = this.#arriving.snapshot(channels, 0);
    const pages = normalPages + zeroPages;
    if (pages === this.#pages) return;
    this.#pages = pages;
    for (const counters of this.#counters) counters.addRound();
  }
}
