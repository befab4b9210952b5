/**
 * What checkpoints cost: one record each, and medians over many.
 *
 * @module
 */

/** One checkpoint, as the side that has it measured it. */
export interface CheckpointStatistics {
  /** Number of the checkpoint, from 1. */
  readonly epoch: number;
  /** Pages it consists of: sent (primary) or put in place (secondary). */
  readonly pages: number;
  /** Bytes on all connections. */
  readonly wireBytes: number;
  /** Bytes of device state, not framed. */
  readonly stateBytes: number;
  /**
   * Time this side stood still: on a primary from the call (or from `capture`) to the confirmation
   * that both may go on, on a secondary from its reply to that confirmation.
   */
  readonly pauseMs: number;
  /** Part of the pause: pages and state on their way. */
  readonly transferMs: number;
  /** Part of the pause: putting pages in place and loading the state; a primary waits for it. */
  readonly applyMs: number;
}

/** Middle and upper end of a quantity over many checkpoints. */
export interface Spread {
  readonly median: number;
  readonly p99: number;
}

/** Checkpoints of a session taken together. */
export interface CheckpointSummary {
  /** Number of checkpoints, all since the start. */
  readonly checkpoints: number;
  readonly pages: Spread;
  readonly wireBytes: Spread;
  readonly pauseMs: Spread;
}

/** Checkpoints a summary looks back on; more would only grow. */
const RECORDS_MAX = 10_000;

/** Keeps the records of the last checkpoints. */
export class CheckpointLog {
  readonly #records: CheckpointStatistics[] = [];
  #count = 0;

  /** Adds one; the oldest of very many is forgotten. */
  add(record: CheckpointStatistics): void {
    this.#records[this.#count % RECORDS_MAX] = record;
    this.#count++;
  }

  /** Medians and 99th percentiles of the records kept; zero when there are none. */
  summary(): CheckpointSummary {
    return {
      checkpoints: this.#count,
      pages: this.#spread(({ pages }) => pages),
      wireBytes: this.#spread(({ wireBytes }) => wireBytes),
      pauseMs: this.#spread(({ pauseMs }) => pauseMs),
    };
  }

  #spread(pick: (record: CheckpointStatistics) => number): Spread {
    const values = this.#records.map(pick).toSorted((left, right) => left - right);
    const at = (share: number): number =>
      values[Math.max(0, Math.ceil(share * values.length) - 1)] ?? 0;
    return { median: at(0.5), p99: at(0.99) };
  }
}
