/**
 * The channels of a file for a caller on the event loop: starts their threads, runs passes, and ends
 * them in bounded time. Messages are exchanged per pass, never per page.
 *
 * @module
 */
import type { OptionNames } from "../option_names.ts";
import { processorCount } from "../../ffi/runtime/runtime.ts";
import { Errno, errnoName } from "../../ffi/libc.ts";
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import { CancelledError, MultifdError } from "../errors.ts";
import { FILE_STRETCH_WINDOWS, JOIN_LIMIT_MS, LATE_CHANNELS_MS } from "../limits.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import type { OpenedFile } from "../storage/opened_file.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { Thread } from "../thread/thread.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import type { FileChannelCommand, FileChannelJob } from "./file_channel_messages.ts";
import type { SharedSeekTable } from "./seek_table.ts";
import { FileBlock, FileRound, type SharedFileBlock } from "./file_round.ts";

/** Options that writing and reading a file have in common. */
export interface FileChannelOptions {
  /**
   * Threads that may work on the file, 1 to 255; a reader need not have as many as the writer. More
   * than there are processors are started when they pay. Default 2.
   */
  readonly channels?: number | undefined;
  /** Bypass the page cache where the file system allows it. Default false. */
  readonly directIo?: boolean | undefined;
  /** Cancels the work; it ends within a second with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
  /** Is told what turned out differently than asked, such as a refused `directIo`. */
  readonly onNotice?: ((notice: string) => void) | undefined;
}

/** Names of {@linkcode FileChannelOptions}. */
export const FILE_CHANNEL_OPTIONS = {
  channels: true,
  directIo: true,
  signal: true,
  onNotice: true,
} satisfies OptionNames<FileChannelOptions>;

/** What the channels work on. */
interface FileChannelWork {
  readonly mode: "read" | "write";
  /** The file; stays the caller's, who may close it once the channels are made. */
  readonly file: OpenedFile;
  /** Where the frames are of a file that is stored compressed; such files are only read. */
  readonly seekTable: SharedSeekTable | undefined;
  readonly detectZeroPages: boolean;
  readonly blocks: readonly SharedFileBlock[];
  /** Their memory; held until the threads have ended. */
  readonly memory: readonly RamBlock[];
  readonly pageSize: number;
  readonly ramBytes: number;
}

/** See the module comment. */
export class FileChannels implements AsyncDisposable {
  readonly #work: FileChannelWork;
  /** Of their own: threads may start when the caller has closed its descriptor. */
  readonly #file: OpenedFile;
  readonly #memory: Disposable;
  readonly #options: FileChannelOptions;
  readonly #channels: number;
  readonly #windows: number;
  readonly #control = new SessionControl();
  readonly #statistics: StatisticsTable;
  readonly #round = new FileRound();
  readonly #group = new WorkerGroup(this.#control);
  readonly #workers: Thread[] = [];
  readonly #exits: Promise<void>[] = [];
  readonly #opened = Promise.withResolvers<void>();
  #openedFiles = 0;
  #passing: PromiseWithResolvers<void> | undefined;
  #noticed = false;
  #disposed: Promise<void> | undefined;

  /**
   * Starts threads, as many as there are processors at first. Nothing waits for them: a pass begins
   * with whoever is ready first.
   *
   * @throws {CancelledError} when the signal is aborted already.
   */
  constructor(work: FileChannelWork, options: FileChannelOptions) {
    const { channels = 2, signal } = options;
    if (signal?.aborted) throw cancelled(signal);
    this.#file = work.file.duplicate();
    this.#memory = holdBlocks(work.memory);
    this.#work = work;
    this.#options = options;
    this.#channels = channels;
    this.#windows = work.blocks.reduce((sum, block) => sum + new FileBlock(block).windows, 0);
    this.#statistics = new StatisticsTable(channels);
    this.#statistics.main().setRamBytes(work.ramBytes);
    signal?.addEventListener("abort", this.#cancel, { once: true });
    // Nobody may be waiting for it; a failure then shows up in `pass()`.
    this.#opened.promise.catch(() => {});
    const atOnce = Math.min(channels, processorCount());
    for (let channel = 0; channel < atOnce; channel++) this.#startNext();
  }

  /**
   * Waits until the threads that begin a pass have opened the file.
   *
   * @throws {MultifdError} the first error of any of them; all threads have ended then.
   */
  async ready(): Promise<void> {
    for (const worker of this.#workers) worker.ref();
    this.#look();
    try {
      await this.#opened.promise;
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    } finally {
      for (const worker of this.#workers) worker.unref();
    }
  }

  /**
   * Works on all pending pages once. One pass at a time.
   *
   * @throws {MultifdError} the first error of any channel, opening the file included. All threads
   * have ended then, and none touches the memory any more.
   */
  async pass(): Promise<void> {
    const counters = this.#statistics.main();
    counters.start();
    counters.addRound();
    // Nobody reads ahead of direct I/O, and channels that take turns end at the same time.
    const stretchMax = this.#options.directIo ? 1 : FILE_STRETCH_WINDOWS;
    this.#round.reset(this.#windows, this.#channels, stretchMax);
    const passing = Promise.withResolvers<void>();
    this.#passing = passing;
    for (const worker of this.#workers) {
      worker.ref();
      post(worker, "pass");
    }
    this.#look();
    const late = setTimeout(() => this.#startOthers(), LATE_CHANNELS_MS);
    try {
      await passing.promise;
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    } finally {
      this.#passing = undefined;
      clearTimeout(late);
      for (const worker of this.#workers) worker.unref();
    }
    counters.end();
    this.#notice();
  }

  /** Counters as of now; `wireBytes` are those of the file. */
  statistics(): Statistics {
    return this.#statistics.snapshot(this.#channels, this.#work.pageSize);
  }

  /**
   * Ends the threads; their descriptors are closed then. Between passes they touch no memory, so who
   * has nothing else to do with the file need not wait. Safe to call twice.
   */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposed ??= this.#end());
  }

  #startNext(): void {
    const channel = this.#workers.length;
    const { mode, seekTable, detectZeroPages, blocks } = this.#work;
    const worker = this.#group.start({
      role: "file-channel",
      channel,
      mode,
      path: this.#file.path,
      fd: this.#file.fd,
      seekTable,
      direct: this.#options.directIo ?? false,
      detectZeroPages,
      control: this.#control.buffer,
      statistics: this.#statistics.buffer,
      round: this.#round.buffer,
      blocks,
    } satisfies FileChannelJob);
    const exited = Promise.withResolvers<void>();
    worker.onExit(() => {
      exited.resolve();
      this.#reject();
    });
    let opened = false;
    worker.onMessage(() => {
      if (opened) return;
      opened = true;
      // Requests on their way to a disk cost no processor, so more of them are better at once.
      if (this.#options.directIo) this.#startOther();
      this.#openedFiles++;
    });
    worker.onMessage(() => this.#look());
    this.#workers.push(worker);
    this.#exits.push(exited.promise);
    if (this.#passing === undefined) return;
    worker.ref();
    post(worker, "pass");
  }

  #startOther(): void {
    if (this.#workers.length < this.#channels && !this.#control.stopping) this.#startNext();
  }

  #startOthers(): void {
    while (this.#workers.length < this.#channels && !this.#control.stopping) this.#startNext();
  }

  /** Ends the pass when all is done or nothing more will be. */
  #look(): void {
    // Stopped without an error means disposed: the channels have left their work undone.
    if (this.#control.stopping) return this.#reject();
    if (this.#openedFiles === this.#workers.length) this.#opened.resolve();
    if (this.#round.finished === this.#windows) this.#passing?.resolve();
  }

  #reject(): void {
    this.#opened.reject(this.#failure());
    this.#passing?.reject(this.#failure());
  }

  #notice(): void {
    const errno = this.#round.directRefused;
    if (errno === 0 || this.#noticed) return;
    this.#noticed = true;
    const reason = errno === Errno.EINVAL ? "the file system refuses it" : errnoName(errno);
    this.#options.onNotice?.(`Cannot use direct I/O for ${this.#file.path}: ${reason}, buffered`);
  }

  async #end(): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#cancel);
    this.#control.finish();
    for (const worker of this.#workers) post(worker, "close");
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    const timer = setTimeout(() => resolve("late"), JOIN_LIMIT_MS);
    const exited = Promise.all(this.#exits);
    const outcome = await Promise.race([exited, late]);
    clearTimeout(timer);
    for (const worker of this.#workers) {
      if (outcome === "late") worker.terminate();
      worker.unref();
    }
    // Not before: a thread that has only been started would open whatever has the number then.
    void exited.finally(() => {
      this.#file[Symbol.dispose]();
      this.#memory[Symbol.dispose]();
    });
  }

  #failure(): MultifdError {
    return (
      this.#control.error ??
      new MultifdError("ERR_MULTIFD_STOPPED", "Cannot go on: a file channel has ended")
    );
  }

  readonly #cancel = (): void => {
    this.#control.fail(cancelled(this.#options.signal));
    this.#look();
  };
}

function post(worker: Thread, kind: FileChannelCommand["kind"]): void {
  worker.postMessage({ kind } satisfies FileChannelCommand);
}

/** The error of a signal that was aborted. */
function cancelled(signal: AbortSignal | undefined): CancelledError {
  const cause: unknown = signal?.reason;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new CancelledError("ERR_MULTIFD_CANCELLED", `Cannot go on: cancelled (${reason})`, {
    cause,
  });
}
