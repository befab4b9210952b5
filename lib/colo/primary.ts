/**
 * The primary of a pair for a caller on the event loop: its session runs on a worker, the channels on
 * workers of that worker.
 *
 * @module
 */
import { saveConfig } from "../device/device.ts";
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CHECKPOINT_STATE_BYTES_MAX } from "../limits.ts";
import type { PageBitmap } from "../memory/page_bitmap.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import { withAddress } from "../session/address.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import {
  DEVICE_STATE_OPTIONS,
  SENDING_OPTIONS,
  SOURCE_OPTIONS,
  type DeviceStateOptions,
  type SendOptions,
  type SendingOptions,
  type SourceOptions,
} from "../session/options.ts";
import { senderConfig, sendRounds } from "../session/session_config.ts";
import { senderCrews } from "../session/session_crew.ts";
import type { NoReports, Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import {
  CheckpointLog,
  type CheckpointStatistics,
  type CheckpointSummary,
} from "./checkpoint_statistics.ts";
import type { ColoPrimaryJob, PrimaryCalls, PrimaryConfig } from "./colo_messages.ts";
import { ColoProgress, type FailOver } from "./colo_progress.ts";
import { STATE_DEVICE } from "./state_channel.ts";

/** Pages that changed: one bitmap for each block, in the order of the option `blocks`. */
export type DirtyPages = PageBitmap | readonly PageBitmap[];

/** What a checkpoint consists of. */
export interface CheckpointContent {
  /** What changed since the checkpoint before; fetched, which clears the bits. */
  readonly dirty: DirtyPages;
  /** Whatever the secondary needs besides memory to go on from here. */
  readonly deviceState?: Uint8Array | undefined;
}

/** Options of {@linkcode connectPrimary}. */
export interface PrimaryOptions extends SendingOptions, SourceOptions, DeviceStateOptions {
  /**
   * Send the device state of checkpoints over the channels, as several buffers of 1 MiB, instead of
   * the main connection. Only secondaries of this library understand it. With compression it needs
   * `deviceStateCompressed`. Default false.
   */
  readonly stateOverChannels?: boolean | undefined;
}

const PRIMARY_OPTIONS = {
  ...SENDING_OPTIONS,
  ...SOURCE_OPTIONS,
  ...DEVICE_STATE_OPTIONS,
  stateOverChannels: true,
} satisfies OptionNames<PrimaryOptions>;

/** Periodic checkpoints. */
export interface CheckpointLoop {
  /** From the end of a checkpoint to the next request, in milliseconds. QEMU's default is 20000. */
  readonly delayMs: number;
  /** Stops everything that writes to the blocks and says what has changed. */
  readonly capture: () => CheckpointContent | Promise<CheckpointContent>;
  /** Lets the writers go on; called after every checkpoint and when the pair has ended. */
  readonly resume?: (() => void | Promise<void>) | undefined;
  /** Called with the record of every checkpoint. */
  readonly onCheckpoint?: ((statistics: CheckpointStatistics) => void) | undefined;
}

const LOOP_OPTIONS = {
  delayMs: true,
  capture: true,
  resume: true,
  onCheckpoint: true,
} satisfies OptionNames<CheckpointLoop>;

const NO_STATE = new Uint8Array(0);

/**
 * A side that keeps running and ships checkpoints, made by {@linkcode connectPrimary}. Nothing that
 * goes wrong with the secondary concerns the blocks: they are only read.
 */
export class ColoPrimary implements AsyncDisposable {
  readonly #blocks: readonly RamBlock[];
  readonly #progress = new ColoProgress();
  readonly #table: StatisticsTable;
  readonly #thread: ServiceThread<PrimaryCalls, NoReports>;
  readonly #channels: number;
  readonly #pageSize: number;
  readonly #log = new CheckpointLog();
  readonly #closing = Promise.withResolvers<void>();
  readonly #idleMs: number;
  #busy = false;

  private constructor(options: PrimaryOptions, config: PrimaryConfig) {
    this.#blocks = options.blocks;
    this.#channels = config.channels;
    this.#pageSize = config.pageSize;
    this.#idleMs = config.timeouts.idleMs;
    this.#table = new StatisticsTable(config.channels);
    const buffers = { progress: this.#progress.buffer, statistics: this.#table.buffer };
    const job = { role: "colo-primary", config, ...buffers } satisfies Unstarted<ColoPrimaryJob>;
    const owner = { side: "source", signal: options.signal } as const;
    this.#thread = new ServiceThread(job, owner, {}, senderCrews(config));
    this.#thread.keep(holdBlocks(options.blocks));
  }

  /** Connects; see {@linkcode connectPrimary}. */
  static async connect(options: PrimaryOptions): Promise<ColoPrimary> {
    checkOptionNames(PRIMARY_OPTIONS, options);
    const { stateOverChannels = false } = options;
    const checked = { ...senderConfig(options), stateOverChannels };
    if (stateOverChannels) saveConfig(STATE_DEVICE, checked.deviceTransport);
    const config = await withAddress(checked);
    return started(new ColoPrimary(options, config), (primary) => primary.#thread.call("connect"));
  }

  /**
   * Makes the first copy: sends everything, then further rounds of what changes meanwhile if asked.
   * Memory that is written to during the last round arrives as a mixture, which the first checkpoint
   * puts right: whoever tracks changes starts before this call. Rounds find changes on their own, by
   * comparison where a tracker of the caller's has the kernel's write protection already.
   */
  async start(options: SendOptions = {}): Promise<void> {
    const { rounds, roundDelayMs } = sendRounds(options);
    await this.#exclusive("make the first copy", this.epoch < 0, () =>
      this.#thread.call("start", rounds, roundDelayMs),
    );
  }

  /**
   * Makes one checkpoint. Nothing may write to the blocks from before `dirty` was fetched until this
   * resolves; then the secondary has put it in place.
   *
   * @throws {MultifdError} the pair's first error; {@linkcode failOver} tells what the secondary has.
   */
  async checkpoint(
    dirty: DirtyPages,
    deviceState: Uint8Array = NO_STATE,
  ): Promise<CheckpointStatistics> {
    this.#checkContent(dirty, deviceState);
    return this.#exclusive("make a checkpoint", this.epoch >= 0, async () => {
      const start = performance.now();
      await this.#thread.call("request");
      return this.#commit({ dirty, deviceState }, start);
    });
  }

  /**
   * Makes checkpoints until the pair ends: each time the secondary is asked to stand still, then
   * `capture` stops the writers, and `resume` lets them go on when the checkpoint is in place.
   *
   * @returns What is left, with the cause if the secondary was lost.
   * @throws What `capture` throws, which ends the pair, since the secondary waits for its checkpoint;
   * what `resume` and `onCheckpoint` throw, which does not.
   */
  async run(loop: CheckpointLoop): Promise<FailOver> {
    checkOptionNames(LOOP_OPTIONS, loop);
    const { delayMs } = loop;
    if (!(delayMs >= 0 && delayMs < this.#idleMs)) {
      throw new RangeError(
        `Cannot wait ${delayMs} ms between checkpoints: must be 0 or more and below the idle limit of ${this.#idleMs} ms`,
      );
    }
    return this.#exclusive("make checkpoints", this.epoch >= 0, async () => {
      while (!this.#thread.control.stopping) {
        await this.#runOnce(loop);
        if (!this.#thread.control.stopping) await this.#pause(delayMs);
      }
      return this.failOver;
    });
  }

  /** Number of the last checkpoint the secondary has put in place; -1 before the first copy. */
  get epoch(): number {
    return this.#progress.epoch;
  }

  /** What is known of the secondary's memory; final once the pair has ended. */
  get failOver(): FailOver {
    const { epoch, pending } = this.#progress;
    return { epoch, pending, cause: this.#thread.control.error };
  }

  /** Counters of the session as of now. */
  statistics(): Statistics {
    return this.#table.snapshot(this.#channels, this.#pageSize);
  }

  /** Medians and 99th percentiles over the checkpoints so far. */
  summary(): CheckpointSummary {
    return this.#log.summary();
  }

  /** Ends the pair and goes on alone; the secondary stays at its last checkpoint. */
  async takeOver(): Promise<FailOver> {
    await this[Symbol.asyncDispose]();
    return this.failOver;
  }

  /** As {@linkcode takeOver}; safe to call twice and in any state. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing.resolve();
    return this.#thread.stop();
  }

  async #runOnce({ capture, resume, onCheckpoint }: CheckpointLoop): Promise<void> {
    try {
      await this.#thread.call("request");
    } catch {
      return; // told by failOver
    }
    const start = performance.now();
    try {
      const content = await this.#captured(capture);
      const record = await this.#commit(content, start).catch(() => undefined);
      if (record !== undefined) onCheckpoint?.(record);
    } finally {
      await resume?.();
    }
  }

  async #captured(capture: CheckpointLoop["capture"]): Promise<CheckpointContent> {
    try {
      const content = await capture();
      this.#checkContent(content.dirty, content.deviceState ?? NO_STATE);
      return content;
    } catch (error) {
      this.#thread.control.fail(error, { side: "source" });
      throw error;
    }
  }

  async #commit(content: CheckpointContent, start: number): Promise<CheckpointStatistics> {
    const { dirty, deviceState = NO_STATE } = content;
    const before = this.statistics();
    const bitmaps = bitmapsOf(dirty).map(({ pages, buffer, byteOffset }) => ({
      pages,
      buffer,
      byteOffset,
    }));
    const sendStart = performance.now();
    const transferMs = await this.#thread.call("commit", bitmaps, deviceState);
    const end = performance.now();
    const after = this.statistics();
    const record = {
      epoch: this.epoch,
      pages: after.normalPages + after.zeroPages - before.normalPages - before.zeroPages,
      wireBytes: after.wireBytes - before.wireBytes,
      stateBytes: deviceState.byteLength,
      pauseMs: end - start,
      transferMs,
      applyMs: end - sendStart - transferMs,
    };
    this.#log.add(record);
    return record;
  }

  /** Runs a step that is no part of another one; the order of the protocol depends on it. */
  async #exclusive<Result>(
    action: string,
    isPossible: boolean,
    step: () => Promise<Result>,
  ): Promise<Result> {
    if (this.#busy || !isPossible) {
      const reason = this.#busy
        ? "another step is under way, must be over first"
        : `the first copy is ${this.epoch < 0 ? "not complete" : "complete already"}`;
      throw new RangeError(`Cannot ${action}: ${reason}`);
    }
    this.#busy = true;
    try {
      return await step();
    } finally {
      this.#busy = false;
    }
  }

  /** Waits for the next checkpoint or the end. */
  async #pause(delayMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, delayMs);
    await Promise.race([promise, this.#closing.promise]);
    clearTimeout(timer);
  }

  #checkContent(dirty: DirtyPages, deviceState: Uint8Array): void {
    const bitmaps = bitmapsOf(dirty);
    const fits =
      bitmaps.length === this.#blocks.length &&
      bitmaps.every(({ pages }, index) => pages === this.#blocks[index].pages);
    if (!fits) {
      throw new RangeError(
        `Cannot make a checkpoint: ${bitmaps.length} bitmaps, must be one for each of ${this.#blocks.length} blocks with a bit for each page`,
      );
    }
    if (deviceState.byteLength > CHECKPOINT_STATE_BYTES_MAX / 2) {
      throw new RangeError(
        `Cannot make a checkpoint: ${deviceState.byteLength} bytes of device state, at most ${CHECKPOINT_STATE_BYTES_MAX / 2} are allowed`,
      );
    }
  }
}

/**
 * Connects to a secondary and sends it the list of blocks.
 *
 * @returns A primary, ready to make the first copy; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when connecting fails.
 *
 * @example
 * ```ts
 * await using primary = await connectPrimary({ endpoint: "127.0.0.1:4444", blocks: [block] });
 * using tracker = await trackDirtyPages(block);
 * await primary.start();
 * const dirty = new PageBitmap(block.pages);
 * await tracker.fetch(dirty); // with all writers stopped
 * const { pauseMs } = await primary.checkpoint(dirty);
 * ```
 */
export function connectPrimary(options: PrimaryOptions): Promise<ColoPrimary> {
  return ColoPrimary.connect(options);
}

function bitmapsOf(dirty: DirtyPages): readonly PageBitmap[] {
  return Array.isArray(dirty) ? (dirty as readonly PageBitmap[]) : [dirty as PageBitmap];
}
