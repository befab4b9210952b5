/**
 * Restores a recorded guest: takes the place of the source of a migration into a real QEMU.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import { Recording } from "../recording/recording.ts";
import type { RecordingMetadata } from "../recording/recording_layout.ts";
import type { ConnectOptions } from "../session/options.ts";
import { connect, type Sender } from "../session/sender.ts";

/** Options of {@linkcode restore}. */
export interface RestoreOptions extends Omit<
  ConnectOptions,
  "blocks" | "state" | "verify" | "devices" | "deviceStateCompressed"
> {
  /** The recording. */
  readonly input: string;
}

/** A recorded guest on its way, made by {@linkcode restore}. */
export class Restorer implements AsyncDisposable {
  readonly #recording: Recording;
  readonly #sender: Sender;

  private constructor(recording: Recording, sender: Sender) {
    this.#recording = recording;
    this.#sender = sender;
  }

  /** See {@linkcode restore}. */
  static async connect(options: RestoreOptions): Promise<Restorer> {
    const { input, ...session } = options;
    const recording = await Recording.open(input);
    try {
      const { blocks, state } = recording;
      return new Restorer(recording, await connect({ ...session, blocks, state }));
    } catch (error) {
      recording[Symbol.dispose]();
      throw error;
    }
  }

  /** What the recording says about the guest. */
  get metadata(): RecordingMetadata {
    return this.#recording.metadata;
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
    await this.#sender.send();
    return this.#sender.complete();
  }

  /** Ends the session and releases everything. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender[Symbol.asyncDispose]();
    this.#recording[Symbol.dispose]();
  }
}

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
export function restore(options: RestoreOptions): Promise<Restorer> {
  return Restorer.connect(options);
}
