/**
 * The secondary of a pair for a caller on the event loop: its session runs on a worker, the channels
 * and the threads that apply checkpoints on workers of that worker.
 *
 * @module
 */
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CHANNELS_MAX } from "../limits.ts";
import { crewThreads } from "../memory/page_crew.ts";
import { holdBlocks, RamBlock } from "../memory/ram_block.ts";
import { formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import type { RecordingContent } from "../recording/recording.ts";
import { withAddress } from "../session/address.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import {
  DEVICE_STATE_OPTIONS,
  RECEIVING_OPTIONS,
  TARGET_OPTIONS,
  type DeviceStateOptions,
  type ReceivingOptions,
  type TargetOptions,
} from "../session/options.ts";
import type { ReturnPathOptions } from "../session/session_warning.ts";
import { receiverConfig } from "../session/session_config.ts";
import { receiverCrews } from "../session/session_crew.ts";
import { ownBlock } from "../session/receiver.ts";
import type { Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import { CapturedGuest } from "./captured_guest.ts";
import {
  CheckpointLog,
  type CheckpointStatistics,
  type CheckpointSummary,
} from "./checkpoint_statistics.ts";
import type {
  ColoSecondaryJob,
  ReceivedCheckpoint,
  SecondaryCalls,
  SecondaryConfig,
  SecondaryReports,
} from "./colo_messages.ts";
import { ColoProgress, type FailOver } from "./colo_progress.ts";

/** Options of {@linkcode listenSecondary}. */
export interface SecondaryOptions
  extends ReceivingOptions, TargetOptions, DeviceStateOptions, ReturnPathOptions {
  /**
   * Keep what a guest has beside RAM, without understanding it: needed where the primary is a QEMU
   * (11.0 or later, capabilities `x-colo`, `multifd` and `return-path`). The end of the pair then
   * leaves a `recording`. The uuid is taken from the stream unless it is given. Default false: the
   * primary is a program with this library.
   */
  readonly capture?: boolean | undefined;
  /**
   * Take back what this side itself writes to the blocks between two checkpoints: after each of them
   * both sides hold the same. Default false: this side does not write.
   */
  readonly revertLocalWrites?: boolean | undefined;
  /** Threads that put checkpoints in place, default up to 4. */
  readonly applyThreads?: number | undefined;
}

const SECONDARY_OPTIONS = {
  ...RECEIVING_OPTIONS,
  ...TARGET_OPTIONS,
  ...DEVICE_STATE_OPTIONS,
  requireReturnPath: true,
  revertLocalWrites: true,
  applyThreads: true,
} satisfies OptionNames<SecondaryOptions>;

/** What a secondary tells. Listeners may return a promise, and the pair waits for it. */
export interface SecondaryEvents {
  /** The first copy is complete. */
  ready: [];
  /** A checkpoint begins: whoever uses the blocks has stopped when the listeners are done. */
  request: [];
  /** A checkpoint is in place: its device state is loaded when the listeners are done. */
  checkpoint: [checkpoint: ReceivedCheckpoint];
  /** Both sides go on. */
  loaded: [statistics: CheckpointStatistics];
}

/** What is left when a pair has ended, on the side of the secondary. */
export interface SecondaryFailOver extends FailOver {
  /**
   * With `capture`: the guest as it was at checkpoint `epoch`, for `writeRecording()` and
   * `restore()`. It holds the secondary's own blocks, and is right as long as nobody writes to them.
   */
  readonly recording: RecordingContent | undefined;
}

type Listeners = {
  [Name in keyof SecondaryEvents]: ((...values: SecondaryEvents[Name]) => void | Promise<void>)[];
};

/**
 * A side that holds a complete copy and can take over at any moment, made by
 * {@linkcode listenSecondary}. The blocks change only while the first copy is made and between the
 * events `request` and `checkpoint`; whatever happens, they then hold one checkpoint as a whole.
 */
export class ColoSecondary implements AsyncDisposable {
  readonly #options: SecondaryOptions;
  readonly #progress = new ColoProgress();
  readonly #table: StatisticsTable;
  readonly #thread: ServiceThread<SecondaryCalls, SecondaryReports>;
  readonly #pageSize: number;
  readonly #listeners: Listeners = { ready: [], request: [], checkpoint: [], loaded: [] };
  readonly #listening: Promise<Endpoint>;
  readonly #followed: Promise<void>;
  readonly #ready = Promise.withResolvers<void>();
  readonly #log = new CheckpointLog();
  #endpoint = "";
  #blocks: readonly RamBlock[] = [];
  #caches: readonly RamBlock[] = [];
  #channels: number;
  /** All listeners called so far, in order. */
  #told: Promise<void> = Promise.resolve();
  #guest: CapturedGuest | undefined;
  #ended: Promise<SecondaryFailOver> | undefined;

  private constructor(options: SecondaryOptions, config: SecondaryConfig) {
    this.#options = options;
    this.#pageSize = config.pageSize;
    this.#channels = config.channels ?? 0;
    this.#table = new StatisticsTable(config.channels ?? CHANNELS_MAX);
    const buffers = { progress: this.#progress.buffer, statistics: this.#table.buffer };
    const job = {
      role: "colo-secondary",
      config,
      ...buffers,
    } satisfies Unstarted<ColoSecondaryJob>;
    const owner = { side: "destination", signal: options.signal } as const;
    const reports: SecondaryReports = {
      blocks: (blocks, caches, channels) => {
        this.#channels = channels;
        this.#blocks = blocks.map((shared) => ownBlock(shared, options.blocks));
        this.#caches = caches.map((shared) => RamBlock.attach(shared));
      },
      ready: (guest) => {
        if (guest !== undefined) this.#guest = new CapturedGuest(guest);
        this.#ready.resolve();
        return this.#tell("ready");
      },
      request: () => this.#tell("request"),
      checkpoint: (checkpoint) => {
        const guest = this.#guest?.take(checkpoint);
        return this.#tell("checkpoint", { ...checkpoint, guest });
      },
      loaded: (record) => {
        this.#log.add(record);
        return this.#tell("loaded", record);
      },
    };
    this.#thread = new ServiceThread<SecondaryCalls, SecondaryReports>(job, owner, reports, [
      ...receiverCrews(config),
      { program: "channel_entry", role: "page-worker", count: config.threads - 1 },
    ]);
    this.#thread.keep(holdBlocks(options.blocks ?? []));
    this.#listening = this.#thread.post("listen");
    this.#followed = this.#thread.post("run");
  }

  /** Listens; see {@linkcode listenSecondary}. */
  static async listen(options: SecondaryOptions): Promise<ColoSecondary> {
    checkOptionNames(SECONDARY_OPTIONS, options);
    const config = await withAddress(secondaryConfig(options));
    return started(new ColoSecondary(options, config), async (secondary) => {
      secondary.#endpoint = formatEndpoint(await secondary.#thread.during(secondary.#listening));
    });
  }

  /** Where the secondary listens, with the port that was chosen for port 0. */
  get endpoint(): string {
    return this.#endpoint;
  }

  /** The blocks, once they are known; their memory outlives the secondary. */
  get blocks(): readonly RamBlock[] {
    return this.#blocks;
  }

  /**
   * What the channels write to, in the order of `blocks`: equal to the blocks after a checkpoint, ahead
   * of them while the next one arrives. Not to be written to.
   */
  get caches(): readonly RamBlock[] {
    return this.#caches;
  }

  /** Number of the checkpoint the blocks hold; -1 before the first copy is complete. */
  get epoch(): number {
    return this.#progress.epoch;
  }

  /** Adds a listener; those of one event are called one after the other. */
  on<Name extends keyof SecondaryEvents>(
    event: Name,
    listener: (...values: SecondaryEvents[Name]) => void | Promise<void>,
  ): this {
    this.#listeners[event].push(listener);
    return this;
  }

  /** Waits until the first copy is complete. */
  ready(): Promise<void> {
    return this.#thread.during(this.#ready.promise);
  }

  /**
   * Waits until the pair has ended, for example because the primary is gone. All listeners have been
   * called then, and the blocks belong to the caller.
   *
   * @returns Which checkpoint the blocks hold, and with `capture` the guest.
   * @throws {MultifdError} the first error, when the first copy never was complete, or when memory is
   * a mixture because a checkpoint could not be put in place.
   */
  ended(): Promise<SecondaryFailOver> {
    return (this.#ended ??= this.#end());
  }

  /**
   * Ends the pair from this side and takes over. A checkpoint that is not here as a whole is dropped,
   * one that is being applied is finished.
   */
  async takeOver(): Promise<SecondaryFailOver> {
    this.#thread.control.finish();
    return this.ended();
  }

  /** Counters of the session as of now. */
  statistics(): Statistics {
    return this.#table.snapshot(this.#channels, this.#pageSize);
  }

  /** Medians and 99th percentiles over the checkpoints so far. */
  summary(): CheckpointSummary {
    return this.#log.summary();
  }

  /** Ends the session and releases everything but the blocks; safe to call twice, in any state. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#thread.stop();
  }

  async #end(): Promise<SecondaryFailOver> {
    await this.#thread.during(this.#followed).catch(() => {}); // the session has the failure
    await this[Symbol.asyncDispose]();
    await this.#told;
    const { epoch, pending, applying } = this.#progress;
    if (epoch < 0 || applying) throw this.#thread.failure();
    const cause = this.#thread.control.error;
    return { epoch, pending, cause, recording: this.#recording(epoch) };
  }

  #recording(epoch: number): RecordingContent | undefined {
    if (this.#options.capture !== true) return undefined;
    const state = this.#guest?.stateAt(epoch);
    if (state === undefined) throw this.#thread.failure(); // lost with its thread
    const { compression = "none" } = this.#options;
    return {
      blocks: this.#blocks,
      state,
      compression: typeof compression === "string" ? compression : compression.method,
      statistics: this.statistics(),
    };
  }

  /** Calls the listeners of an event after those of the events before. */
  #tell<Name extends keyof SecondaryEvents>(
    event: Name,
    ...values: SecondaryEvents[Name]
  ): Promise<void> {
    const told = this.#callListeners(this.#told, event, values);
    this.#told = told.catch(() => {}); // it ends the session
    return told;
  }

  async #callListeners<Name extends keyof SecondaryEvents>(
    before: Promise<void>,
    event: Name,
    values: SecondaryEvents[Name],
  ): Promise<void> {
    await before;
    for (const listener of this.#listeners[event]) await listener(...values);
  }
}

/**
 * Listens for one primary.
 *
 * @returns A secondary, already listening; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when listening fails, for example because the port is in use.
 *
 * @example
 * ```ts
 * await using secondary = await listenSecondary({ endpoint: "127.0.0.1:4444", channels: 4 });
 * secondary.on("checkpoint", ({ epoch, deviceState }) => remember(epoch, deviceState));
 * const { epoch, cause } = await secondary.ended(); // the primary is gone
 * takeOverFrom(secondary.blocks);
 * ```
 */
export function listenSecondary(options: SecondaryOptions): Promise<ColoSecondary> {
  return ColoSecondary.listen(options);
}

function secondaryConfig(options: SecondaryOptions): SecondaryConfig {
  const { revertLocalWrites = false, applyThreads = crewThreads(), capture = false } = options;
  const { uuid = capture ? "any" : undefined } = options; // a guest brings its own
  if (!Number.isInteger(applyThreads) || applyThreads < 1 || applyThreads > 64) {
    throw new RangeError(`Cannot apply with ${applyThreads} threads: must be 1 to 64`);
  }
  return { ...receiverConfig({ ...options, uuid }), revertLocalWrites, threads: applyThreads };
}
