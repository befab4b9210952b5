/**
 * The way to a sender for threads that may block.
 *
 * @module
 */
import type { DeviceDefinition, DeviceProgress } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { Statistics } from "../engine/statistics.ts";
import { indexOfBlock } from "../memory/block_list.ts";
import type { PageBitmap } from "../memory/page_bitmap.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import { checkOptionNames } from "../option_names.ts";
import { SessionControl } from "../sync/session_control.ts";
import { queuedProgress, requireClient } from "./device_progress.ts";
import { CONNECT_OPTIONS, type ConnectOptions, type SendOptions } from "./options.ts";
import { senderConfig, sendRounds } from "./session_config.ts";
import { SenderSession } from "./sender_session.ts";

/**
 * A connected sender, made by {@linkcode connectBlocking}: as `Sender`, but every call returns when it
 * is done. It belongs to the thread that made it.
 */
export class BlockingSender implements Disposable {
  readonly #blocks: readonly RamBlock[];
  readonly #control = new SessionControl();
  readonly #session: SenderSession;
  readonly #memory: Disposable;

  private constructor(options: ConnectOptions) {
    this.#blocks = options.blocks;
    this.#session = new SenderSession(senderConfig(options), this.#control);
    this.#memory = holdBlocks(options.blocks);
  }

  /** See {@linkcode connectBlocking}. */
  static connect(options: ConnectOptions): BlockingSender {
    checkOptionNames(CONNECT_OPTIONS, options);
    const sender = new BlockingSender(options);
    try {
      sender.#session.connect();
      return sender;
    } catch (error) {
      sender[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Sends every page of every block and synchronises; then further rounds of changes, if asked. Memory
   * that other threads or processes still write to needs a last round when they are quiet.
   */
  send(options: SendOptions = {}): void {
    const { rounds, roundDelayMs } = sendRounds(options);
    this.#session.sendRounds(rounds, roundDelayMs);
  }

  /**
   * Queues one page.
   *
   * @throws {RangeError} unless there is such a block and the page is in it.
   */
  queuePage(block: RamBlock | string, page: number): void {
    this.queueRange(block, page, page + 1);
  }

  /**
   * Queues pages `first` up to, not including, `end` of a block, given as it is or by its id.
   *
   * @throws {RangeError} unless there is such a block and all pages are in it.
   */
  queueRange(block: RamBlock | string, first: number, end: number): void {
    this.#session.queueRange(indexOfBlock(this.#blocks, block), first, end);
  }

  /**
   * Queues single pages of a block.
   *
   * @throws {RangeError} unless there is such a block and all pages are in it.
   */
  queuePages(block: RamBlock | string, pages: Uint32Array): void {
    this.#session.queuePages(indexOfBlock(this.#blocks, block), pages);
  }

  /** Fetches all set bits of a block's dirty bitmap, clearing them, and queues their pages. */
  queueBitmap(block: RamBlock | string, dirty: PageBitmap): void {
    this.#session.queueBitmap(indexOfBlock(this.#blocks, block), dirty);
  }

  /**
   * Registers a device: its `save` runs at the completion phase. Buffers for device state are
   * allocated with the first one.
   *
   * @throws {RangeError | TypeError} for a device that cannot work in this session.
   */
  registerDevice(device: DeviceDefinition): void {
    this.#session.registerDevice(device);
  }

  /**
   * What `new DeviceClient()` takes in any thread that may block; cloneable.
   *
   * @throws {RangeError} before a device is registered.
   */
  get deviceClient(): DeviceClientHandle {
    return requireClient(this.#session.deviceClient);
  }

  /** Queues a copy of a registered device's state; see `DeviceClient.queueDeviceState()`. */
  queueDeviceState(idstr: string, instanceId: number, bytes: Uint8Array, config = false): void {
    this.#session.queueDeviceState(idstr, instanceId, bytes, config);
  }

  /** What has been queued of each device so far. */
  deviceProgress(): DeviceProgress[] {
    return queuedProgress(this.#session.deviceClient);
  }

  /** Ends a round: no page queued later is put in place before those queued so far. */
  sync(): void {
    this.#session.sync();
  }

  /**
   * Sends what is left, ends the stream and waits until the receiver confirms that all of it is in
   * place. No other thread may write to the blocks any more when digests are wanted.
   *
   * @returns The final statistics.
   */
  complete(): Statistics {
    this.#session.awaitConfirmation();
    this[Symbol.dispose]();
    return this.statistics();
  }

  /** Counters as of now; readable after the end and after a failure. */
  statistics(): Statistics {
    return this.#session.statistics();
  }

  /** Stops everything, joins the channels and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
    if (!this.#control.threadsLeft) this.#memory[Symbol.dispose]();
  }
}

/**
 * Makes a connected sender for a thread that may block, such as a worker.
 *
 * @param options As for `connect()`; the host must be numeric, and `signal` is not looked at since
 * a blocked thread sees no events.
 * @throws {MultifdError} when connecting fails; everything is released then.
 */
export function connectBlocking(options: ConnectOptions): BlockingSender {
  return BlockingSender.connect(options);
}
