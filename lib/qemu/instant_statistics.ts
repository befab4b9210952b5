/**
 * Counters of a restore whose memory follows the guest, in shared memory: one thread writes, anybody reads.
 *
 * @module
 */

const Field = {
  START: 0,
  RUNNING: 1,
  END: 2,
  REQUESTS: 3,
  REQUESTED: 4,
  SENT: 5,
  LEFT: 6,
  WIRE: 7,
  HELD: 8,
} as const;
const FIELDS = 16;
/** Buckets of latencies: eighths of octaves from a microsecond to a minute. */
const BUCKETS = 208;
const BUCKETS_PER_OCTAVE = 8;

/** How far a restore is whose memory follows the guest. */
export interface InstantProgress {
  /** Milliseconds from the start of connecting to now or to the end. */
  readonly elapsedMs: number;
  /** Milliseconds from the start of connecting to the moment the guest ran; undefined before. */
  readonly runningMs: number | undefined;
  /** Times that the guest waited for memory, as far as it was not on its way already. */
  readonly requests: number;
  /** Pages of the target sent because they were asked for. */
  readonly requestedPages: number;
  /** Pages of the target sent in all, zero pages that were asked for included. */
  readonly sentPages: number;
  /** Pages of the destination's memory that the file holds, and those of them that are still to be sent. */
  readonly heldPages: number;
  readonly leftPages: number;
  readonly wireBytes: number;
  /** Milliseconds from a request's arrival to its pages in the socket; undefined before the first. */
  readonly latencyMs: { readonly median: number; readonly p99: number } | undefined;
  /** How many requests took up to so many milliseconds, for a histogram; empty ones are left out. */
  readonly latencies: readonly { readonly upToMs: number; readonly requests: number }[];
}

/** See the module comment. Each thread makes its own object over the same buffer. */
export class InstantStatistics {
  readonly buffer: SharedArrayBuffer;
  readonly #fields: Float64Array;
  readonly #buckets: Float64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer((FIELDS + BUCKETS) * 8)) {
    this.buffer = buffer;
    this.#fields = new Float64Array(buffer, 0, FIELDS);
    this.#buckets = new Float64Array(buffer, FIELDS * 8, BUCKETS);
  }

  start(heldPages: number): void {
    this.#fields[Field.START] = wallMs();
    this.#fields[Field.HELD] = heldPages;
    this.#fields[Field.LEFT] = heldPages;
  }

  running(): void {
    if (this.#fields[Field.RUNNING] === 0) this.#fields[Field.RUNNING] = wallMs();
  }

  end(): void {
    this.#fields[Field.END] = wallMs();
  }

  /** A request was answered with so many pages. */
  answered(pages: number, latencyMs: number): void {
    this.#fields[Field.REQUESTS]++;
    this.#fields[Field.REQUESTED] += pages;
    const octaves = Math.log2(Math.max(1, latencyMs * 1000));
    this.#buckets[Math.min(BUCKETS - 1, Math.floor(octaves * BUCKETS_PER_OCTAVE))]++;
  }

  sent(pages: number, leftPages: number, wireBytes: number): void {
    this.#fields[Field.SENT] += pages;
    this.#fields[Field.LEFT] = leftPages;
    this.#fields[Field.WIRE] = wireBytes;
  }

  /** Everything, as of now. */
  progress(): InstantProgress {
    const fields = this.#fields;
    const start = fields[Field.START];
    const running = fields[Field.RUNNING];
    const counts = this.#buckets.slice();
    const requests = counts.reduce((sum, count) => sum + count, 0);
    const quantile = (share: number): number => {
      let left = Math.ceil(requests * share);
      const bucket = counts.findIndex((count) => (left -= count) <= 0);
      return upToMs(bucket);
    };
    return {
      elapsedMs: start === 0 ? 0 : (fields[Field.END] || wallMs()) - start,
      runningMs: running === 0 ? undefined : running - start,
      requests: fields[Field.REQUESTS],
      requestedPages: fields[Field.REQUESTED],
      sentPages: fields[Field.SENT],
      heldPages: fields[Field.HELD],
      leftPages: fields[Field.LEFT],
      wireBytes: fields[Field.WIRE],
      latencyMs: requests === 0 ? undefined : { median: quantile(0.5), p99: quantile(0.99) },
      latencies: [...counts.entries()]
        .filter(([, count]) => count > 0)
        .map(([bucket, count]) => ({ upToMs: upToMs(bucket), requests: count })),
    };
  }
}

function upToMs(bucket: number): number {
  return 2 ** ((bucket + 1) / BUCKETS_PER_OCTAVE) / 1000;
}

function wallMs(): number {
  return performance.timeOrigin + performance.now();
}
