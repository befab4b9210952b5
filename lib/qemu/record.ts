/**
 * Records a guest: takes the place of the destination of a real migration and stores what arrives.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import { MultifdError, StreamError } from "../errors.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import { writeRecording } from "../recording/recording.ts";
import type { RecordingMetadata } from "../recording/recording_layout.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { RECEIVING_OPTIONS, type ReceivingOptions } from "../session/options.ts";
import { WARNING_OPTIONS, type WarningOptions } from "../session/session_warning.ts";
import { listen, type Receiver } from "../session/receiver.ts";
import { checkOutputPath } from "../storage/output_file.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { isSourceStaying } from "../wire/waiting_source.ts";

/** Options of {@linkcode record}. */
export interface RecordOptions extends ReceivingOptions, WarningOptions {
  /** File to write; it appears, or replaces an older one, when the recording is complete. */
  readonly output: string;
}

const RECORD_OPTIONS = {
  ...RECEIVING_OPTIONS,
  ...WARNING_OPTIONS,
  output: true,
} satisfies OptionNames<RecordOptions>;

/** What becomes of the file, shared with the receiver's last step. */
interface Writing {
  metadata?: RecordingMetadata;
  done?: Promise<RecordingMetadata>;
  /** Aborted when the session has ended another way. */
  readonly stop: AbortController;
}

/** A recorder waiting for its guest, made by {@linkcode record}. */
export class Recorder implements AsyncDisposable {
  readonly #receiver: Receiver;
  readonly #writing: Writing;
  readonly #output: string;

  private constructor(receiver: Receiver, writing: Writing, output: string) {
    this.#receiver = receiver;
    this.#writing = writing;
    this.#output = output;
  }

  /** See {@linkcode record}. */
  static async listen(options: RecordOptions): Promise<Recorder> {
    checkOptionNames(RECORD_OPTIONS, options);
    const { output, signal, ...session } = options;
    const { compression = "none" } = options;
    checkOutputPath(`Cannot write ${output}`, output);
    const writing: Writing = { stop: new AbortController() };
    const signals = [writing.stop.signal, ...(signal === undefined ? [] : [signal])];
    const finalize = async (blocks: readonly RamBlock[], state?: GuestState): Promise<void> => {
      const content = {
        blocks,
        state: state!, // captured
        compression: typeof compression === "string" ? compression : compression.method,
        statistics: receiver.statistics(),
      };
      writing.done = writeRecording(output, content, AbortSignal.any(signals));
      writing.metadata = await writing.done;
    };
    const receiver = await listen({
      uuid: "any",
      ...session,
      signal,
      capture: true,
      finalize,
    });
    return new Recorder(receiver, writing, output);
  }

  /** Where to migrate to, with the port that was chosen for port 0. */
  get endpoint(): string {
    return this.#receiver.endpoint;
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): Statistics {
    return this.#receiver.statistics();
  }

  /**
   * Waits until the recording is complete and on the device, and a source with a return path has
   * been told so.
   *
   * @returns What was recorded.
   */
  async complete(): Promise<RecordingMetadata> {
    try {
      await this.#receiver.complete();
    } catch (error) {
      await this.#abandon();
      throw this.#withOutcome(error);
    }
    const { metadata } = this.#writing;
    if (metadata !== undefined) return metadata;
    throw new MultifdError("ERR_MULTIFD_STOPPED", "Cannot record: the session has ended");
  }

  /** A source that stays for checkpoints is found when the file is there, and a user must know. */
  #withOutcome(error: unknown): unknown {
    if (!isSourceStaying(error) || this.#writing.metadata === undefined) return error;
    const { code, message, side, phase, peer } = error;
    return new StreamError(code, `${message}; the recording ${this.#output} is complete`, {
      side,
      phase,
      peer,
      cause: error,
    });
  }

  /** Ends the session; what is not complete is removed. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#receiver[Symbol.asyncDispose]();
    await this.#abandon();
  }

  /** Ends writing, which removes the unfinished file; one that is complete stays. */
  async #abandon(): Promise<void> {
    const { stop, done } = this.#writing;
    stop.abort(new Error("the session has ended"));
    await done?.catch(() => {}); // its failure is the session's, or a consequence
  }
}

/**
 * Listens for the migration of a guest and records it: RAM, device state, and what it takes to send
 * them to another QEMU. The source may run meanwhile; what is recorded is the moment of switch-over.
 * With a return path the source keeps its guest if recording fails.
 *
 * Channels and compression are not in the stream and must be those of the source. uuid and sync mode
 * are taken from the stream unless they are given. The guest's RAM is held in memory.
 *
 * @returns A recorder, already listening; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when listening fails, or there can be no file at `output`.
 *
 * @example
 * ```ts
 * await using recorder = await record({
 *   endpoint: "127.0.0.1:4444", channels: 4, compression: "zstd", output: "vm.rec",
 * });
 * const { machine } = await recorder.complete();
 * ```
 */
export function record(options: RecordOptions): Promise<Recorder> {
  return Recorder.listen(options);
}
