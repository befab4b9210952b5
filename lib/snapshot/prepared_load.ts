/**
 * A load whose threads are ready and whose memory is there: what is left takes no longer than
 * reading does.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import type { FileChannels } from "./file_channels.ts";

/** What was loaded. */
export interface LoadedRam {
  /** The blocks in the order of the file. */
  readonly blocks: readonly RamBlock[];
  readonly statistics: Statistics;
}

/** Milliseconds between two calls of `onProgress`. */
const PROGRESS_INTERVAL_MS = 250;

/** See the module comment. Made by `Snapshot.prepareLoad()`; dispose it in any case. */
export interface PreparedLoad extends AsyncDisposable {
  /** The blocks in the order of the file; their content is complete when `load()` has returned. */
  readonly blocks: readonly RamBlock[];
  /**
   * Loads all pages; to be called once.
   *
   * @throws {MultifdError} when loading fails or was cancelled; memory may be filled in part then.
   */
  load(): Promise<LoadedRam>;
  /** Ends the threads. Safe to call twice and in any state. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A load by file channels. */
export class ChannelLoad implements PreparedLoad {
  readonly blocks: readonly RamBlock[];
  readonly #channels: FileChannels;
  readonly #onProgress: ((statistics: Statistics) => void) | undefined;

  /** @param channels Owned by this object from now on. */
  constructor(
    blocks: readonly RamBlock[],
    channels: FileChannels,
    onProgress: ((statistics: Statistics) => void) | undefined,
  ) {
    this.blocks = blocks;
    this.#channels = channels;
    this.#onProgress = onProgress;
  }

  /** Waits until the threads are ready; part of preparing. */
  ready(): Promise<void> {
    return this.#channels.ready();
  }

  async load(): Promise<LoadedRam> {
    await withProgress(this.#channels, this.#onProgress, () => this.#channels.pass());
    return { blocks: this.blocks, statistics: this.#channels.statistics() };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#channels[Symbol.asyncDispose]();
  }
}

/** Runs `work` and reports the channels' counters while it lasts and at its end. */
export async function withProgress(
  channels: FileChannels,
  onProgress: ((statistics: Statistics) => void) | undefined,
  work: () => Promise<void>,
): Promise<void> {
  if (onProgress === undefined) return work();
  const timer = setInterval(() => onProgress(channels.statistics()), PROGRESS_INTERVAL_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  onProgress(channels.statistics());
}
