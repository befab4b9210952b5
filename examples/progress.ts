/**
 * Progress of a transfer, taken from its statistics a few times a second.
 *
 * @module
 */
import type { SingleBar } from "cli-progress";
import type { Statistics } from "../mod.ts";
import { formatBytes, formatRate, formatSeconds } from "./units.ts";

/** What a progress bar shows at one moment. */
export interface ProgressSample {
  /** Done, 0 to 1; never less than in the sample before. 1 only at the end. */
  readonly fraction: number;
  /** Bytes of pages handled, all rounds together. */
  readonly pageBytes: number;
  /** Bytes of pages per second, smoothed. */
  readonly pageRate: number;
  /** Seconds to the end of the first round, Infinity while nothing moves. */
  readonly secondsLeft: number;
  /** Bytes of pages per byte on the wire. */
  readonly ratio: number;
  readonly zeroPages: number;
  /** Bytes per second on the wire of each channel, smoothed. */
  readonly channelRates: readonly number[];
}

/** The counters that progress is made of. */
export type ProgressCounters = Pick<
  Statistics,
  "ramBytes" | "pageBytes" | "wireBytes" | "zeroPages" | "channels"
>;

/** Weight of a sample that is one second younger than another, relative to it. */
const SMOOTHING_SECONDS = 2;

/** Shown until the end is confirmed: rounds and the last word of the receiver are still to come. */
const FRACTION_BEFORE_END = 0.99;

/** Turns statistics into samples. Has no clock of its own. */
export class ProgressMeter {
  #fraction = 0;
  #atMs: number | undefined;
  #pageBytes = 0;
  #pageRate = 0;
  #channelBytes: number[] = [];
  #channelRates: number[] = [];

  /** The state at `nowMs`, any clock that does not run backwards. */
  sample(statistics: ProgressCounters, nowMs: number): ProgressSample {
    const { ramBytes, pageBytes, wireBytes, zeroPages, channels } = statistics;
    const elapsed = this.#atMs === undefined ? 0 : (nowMs - this.#atMs) / 1000;
    if (elapsed > 0) {
      const weight = 1 - Math.exp(-elapsed / SMOOTHING_SECONDS);
      const smooth = (rate: number, bytes: number): number =>
        rate === 0 ? bytes / elapsed : rate + (bytes / elapsed - rate) * weight;
      this.#pageRate = smooth(this.#pageRate, pageBytes - this.#pageBytes);
      this.#channelRates = channels.map(({ bytes }, channel) =>
        smooth(this.#channelRates[channel] ?? 0, bytes - (this.#channelBytes[channel] ?? 0)),
      );
    }
    if (elapsed > 0 || this.#atMs === undefined) {
      this.#atMs = nowMs;
      this.#pageBytes = pageBytes;
      this.#channelBytes = channels.map(({ bytes }) => bytes);
    }
    // Later rounds send pages again, so pages may come to more than the memory there is.
    const fraction = ramBytes === 0 ? 0 : (pageBytes / ramBytes) * FRACTION_BEFORE_END;
    this.#fraction = Math.max(this.#fraction, Math.min(fraction, FRACTION_BEFORE_END));
    const left = Math.max(0, ramBytes - pageBytes);
    return {
      fraction: this.#fraction,
      pageBytes,
      pageRate: this.#pageRate,
      secondsLeft: left === 0 ? 0 : left / this.#pageRate,
      ratio: wireBytes === 0 ? 1 : pageBytes / wireBytes,
      zeroPages,
      channelRates: this.#channelRates,
    };
  }

  /** The last sample, after the transfer was confirmed. */
  end(statistics: ProgressCounters, nowMs: number): ProgressSample {
    this.#fraction = 1;
    return { ...this.sample(statistics, nowMs), fraction: 1, secondsLeft: 0 };
  }
}

const REFRESH_MS = 200;

/** A bar on stderr for as long as a transfer runs; nothing at all when stderr is no terminal. */
export class ProgressBar implements Disposable {
  readonly #statistics: () => ProgressCounters;
  readonly #meter = new ProgressMeter();
  readonly #bar: SingleBar | undefined;
  readonly #timer: NodeJS.Timeout | undefined;

  /**
   * @param label First word of the line.
   * @param statistics Called a few times a second.
   */
  constructor(label: string, statistics: () => ProgressCounters) {
    this.#statistics = statistics;
    if (!process.stderr.isTTY) return;
    const { SingleBar } = require("cli-progress") as typeof import("cli-progress");
    this.#bar = new SingleBar({
      stream: process.stderr,
      barsize: 24,
      barCompleteChar: "#",
      barIncompleteChar: "-",
      hideCursor: true,
      // Signals are the program's business; disposing restores the terminal.
      gracefulExit: false,
      // A terminal narrower than the line cuts it instead of scrolling.
      linewrap: false,
      format: `${label} [{bar}] {percentage}% {details}`,
    });
    this.#bar.start(100, 0, { details: "" });
    this.#timer = setInterval(() => {
      this.#show(this.#meter.sample(this.#statistics(), performance.now()));
    }, REFRESH_MS);
    this.#timer.unref();
  }

  /** Shows 100 %: the other side has confirmed. */
  complete(): void {
    if (this.#bar !== undefined) this.#show(this.#meter.end(this.#statistics(), performance.now()));
  }

  /** Takes the bar off the screen's cursor and leaves its last state there. Safe to call twice. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#bar?.stop();
  }

  #show(sample: ProgressSample): void {
    this.#bar?.update(Math.floor(sample.fraction * 100), { details: progressLine(sample) });
  }
}

/** Channels that are listed one by one; more are summed up. */
const CHANNELS_LISTED = 4;

/** Everything but the bar itself: bytes, rate, time left, ratio, zero pages, channels. */
export function progressLine(sample: ProgressSample): string {
  const rates = sample.channelRates;
  const channels =
    rates.length <= CHANNELS_LISTED
      ? rates.map((rate) => formatRate(rate)).join(" ")
      : `${rates.length} channels, ${formatRate(Math.min(...rates))} to ${formatRate(Math.max(...rates))}`;
  return [
    formatBytes(sample.pageBytes),
    formatRate(sample.pageRate),
    `${formatSeconds(sample.secondsLeft)} left`,
    `ratio ${sample.ratio.toFixed(2)}`,
    `${sample.zeroPages} zero pages`,
    ...(channels === "" ? [] : [channels]),
  ].join(" | ");
}
