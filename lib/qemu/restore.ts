/**
 * Restores a recorded guest: takes the place of the source of a migration into a real QEMU.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import { planRecording, Recording, type RecordingContent } from "../recording/recording.ts";
import type { RecordingMetadata } from "../recording/recording_layout.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { SENDING_OPTIONS, type SendingOptions } from "../session/options.ts";
import { InstantRestorer, type InstantRestoreOptions } from "./restore_instant.ts";
import { connect, type Sender } from "../session/sender.ts";

/** Options of {@linkcode restore}. */
export interface RestoreOptions extends SendingOptions {
  /**
   * The recording: a file, or what a secondary is left with when its primary is gone. Nobody may
   * change the memory of the latter meanwhile.
   */
  readonly input: string | RecordingContent;
  /** Whether the guest runs before its memory has arrived: {@linkcode InstantRestoreOptions}. Default false. */
  readonly instant?: false | undefined;
}

const RESTORE_OPTIONS = {
  ...SENDING_OPTIONS,
  input: true,
  instant: true,
} satisfies OptionNames<RestoreOptions>;

/** A recorded guest on its way, made by {@linkcode restore}. */
export class Restorer implements AsyncDisposable {
  /** What the recording says about the guest. */
  readonly metadata: RecordingMetadata;
  /** Open until the end, if it is a file. */
  readonly #file: Recording | undefined;
  readonly #sender: Sender;

  private constructor(metadata: RecordingMetadata, file: Recording | undefined, sender: Sender) {
    this.metadata = metadata;
    this.#file = file;
    this.#sender = sender;
  }

  /** See {@linkcode restore}. */
  static async connect(options: RestoreOptions): Promise<Restorer> {
    checkOptionNames(RESTORE_OPTIONS, options);
    const { input, instant: _, ...session } = options;
    if (typeof input !== "string") {
      const { blocks, state } = input;
      const sender = await connect({ ...session, blocks, state });
      return new Restorer(planRecording(input), undefined, sender);
    }
    const file = await Recording.open(input);
    try {
      const { blocks, state, metadata } = file;
      return new Restorer(metadata, file, await connect({ ...session, blocks, state }));
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): Statistics {
    return this.#sender.statistics();
  }

  /**
   * Sends everything and waits until the destination confirms that it is in place; without a return
   * path, until everything is handed to the sockets.
   */
  async complete(): Promise<Statistics> {
    try {
      await this.#sender.send();
    } finally {
      this.#file?.checkLength(); // else what failed is only what came of it
    }
    return this.#sender.complete();
  }

  /** Ends the session and releases everything. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender[Symbol.asyncDispose]();
    this.#file?.[Symbol.dispose]();
  }
}

/**
 * Connects to a QEMU that waits with capability postcopy-ram, to have it run a guest at once: pages come
 * when the guest touches them, and all others behind them. From a recording or a snapshot.
 *
 * @returns A restorer; wait for `running()` and for `complete()`, and dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when the file cannot be used, or the destination refuses before the switch.
 *
 * @example
 * ```ts
 * await using restorer = await restore({
 *   instant: true, input: "guest.snap", endpoint: "127.0.0.1:5555",
 * });
 * await restorer.running();
 * console.log(restorer.progress().runningMs);
 * await restorer.complete();
 * ```
 */
export function restore(options: InstantRestoreOptions): Promise<InstantRestorer>;
/**
 * Connects to a QEMU that waits for an incoming migration, to send it a recorded guest. Machine type,
 * devices and memory of that QEMU must be those of the recorded one; channels and compression are
 * those that it is set to, whatever they were when the guest was recorded.
 *
 * @returns A restorer, connected; call `complete()`, and dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when the recording cannot be used or connecting fails.
 *
 * @example
 * ```ts
 * await using restorer = await restore({
 *   input: "vm.rec", endpoint: "127.0.0.1:5555", channels: 2, compression: "zlib",
 * });
 * await restorer.complete();
 * ```
 */
export function restore(options: RestoreOptions): Promise<Restorer>;
export function restore(
  options: RestoreOptions | InstantRestoreOptions,
): Promise<Restorer | InstantRestorer> {
  return options.instant === true ? InstantRestorer.connect(options) : Restorer.connect(options);
}
