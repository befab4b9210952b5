/**
 * The asynchronous sender: the main connection and the page queue run on a worker, the channels on
 * workers of that worker, and the caller's event loop stays free.
 *
 * @module
 */
import {
  saveConfig,
  type DeviceDefinition,
  type DeviceProgress,
  type DeviceTransport,
} from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import { DeviceTable } from "../engine/device_table.ts";
import { StatisticsTable, type Statistics } from "../engine/statistics.ts";
import type { PageBitmap } from "../memory/page_bitmap.ts";
import { checkPages, indexOfBlock } from "../memory/block_list.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import { checkOptionNames } from "../option_names.ts";
import type { NameOf, NoReports, ResultOf, Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import { withAddress } from "./address.ts";
import { queuedProgress, requireClient } from "./device_progress.ts";
import { CONNECT_OPTIONS, type ConnectOptions, type SendOptions } from "./options.ts";
import { senderConfig, sendRounds, type SenderConfig } from "./session_config.ts";
import { senderCrews } from "./session_crew.ts";
import type { SenderCalls, SenderJob } from "./session_messages.ts";

/** Pages collected before they are posted to the sender's thread as one list. */
const PAGE_LIST_MAX = 65_536;

/**
 * A connected sender, made by {@linkcode connect}. Calls are carried out in order; each rejects with
 * the session's first error once it has failed.
 */
export class Sender implements AsyncDisposable {
  readonly #blocks: readonly RamBlock[];
  readonly #table: StatisticsTable;
  readonly #thread: ServiceThread<SenderCalls, NoReports>;
  readonly #channels: number;
  readonly #pageSize: number;
  readonly #deviceTransport: DeviceTransport;
  #deviceClient: DeviceClientHandle | undefined;
  #listBlock = 0;
  #list: number[] = [];

  private constructor(options: ConnectOptions, config: SenderConfig) {
    this.#blocks = options.blocks;
    this.#channels = config.channels;
    this.#pageSize = config.pageSize;
    this.#deviceTransport = config.deviceTransport;
    this.#table = new StatisticsTable(config.channels);
    const statistics = this.#table.buffer;
    const job = { role: "sender", config, statistics } satisfies Unstarted<SenderJob>;
    const owner = { side: "source", signal: options.signal } as const;
    this.#thread = new ServiceThread(job, owner, {}, senderCrews(config));
    this.#thread.keep(holdBlocks(options.blocks));
  }

  /** Connects; see {@linkcode connect}. */
  static async connect(options: ConnectOptions): Promise<Sender> {
    checkOptionNames(CONNECT_OPTIONS, options);
    const config = await withAddress(senderConfig(options));
    return started(new Sender(options, config), async (sender) => {
      sender.#deviceClient = await sender.#thread.call("connect");
    });
  }

  /** Sends every page of every block and synchronises; then further rounds of changes, if asked. */
  async send(options: SendOptions = {}): Promise<void> {
    const { rounds, roundDelayMs } = sendRounds(options);
    await this.#call("send", rounds, roundDelayMs);
  }

  /**
   * Queues one page without waiting; pages are collected and sent together with the next call that
   * waits. Errors show up there.
   *
   * @throws {RangeError} for a page outside the block.
   */
  queuePage(block: RamBlock | string, page: number): void {
    const index = this.#indexOf(block, page, page + 1);
    if (index !== this.#listBlock || this.#list.length >= PAGE_LIST_MAX) this.#postList();
    this.#listBlock = index;
    this.#list.push(page);
  }

  /**
   * Queues single pages.
   *
   * @throws {RangeError} for a page outside the block.
   */
  async queuePages(block: RamBlock | string, pages: Uint32Array): Promise<void> {
    const index = indexOfBlock(this.#blocks, block);
    for (const page of pages) checkPages(this.#blocks, index, page, page + 1);
    await this.#call("pages", index, pages);
  }

  /** Queues pages `first` up to, not including, `end`. */
  async queueRange(block: RamBlock | string, first: number, end: number): Promise<void> {
    await this.#call("range", this.#indexOf(block, first, end), first, end);
  }

  /**
   * Fetches all set bits of a dirty bitmap, clearing them there, and queues their pages. Writers may
   * go on setting bits; what is set afterwards belongs to the next round.
   */
  async queueBitmap(block: RamBlock | string, dirty: PageBitmap): Promise<void> {
    const { pages, buffer, byteOffset } = dirty;
    const index = this.#indexOf(block, 0, pages);
    await this.#call("bitmap", index, pages, buffer, byteOffset);
  }

  /**
   * Registers a device: its `save` runs on a thread of its own at the completion phase. The first
   * one also allocates the buffers, up to 1 MiB for each channel twice and each busy producer.
   *
   * @throws {RangeError | TypeError} for a device that cannot work in this session.
   */
  async registerDevice(device: DeviceDefinition): Promise<void> {
    const checked = saveConfig(device, this.#deviceTransport);
    const table = this.#deviceClient && new DeviceTable(this.#deviceClient.devices);
    table?.checkNew(checked);
    this.#deviceClient = await this.#call("device", checked);
  }

  /**
   * What `new DeviceClient()` takes in any thread that may block; cloneable.
   *
   * @throws {RangeError} before a device is registered.
   */
  get deviceClient(): DeviceClientHandle {
    return requireClient(this.#deviceClient);
  }

  /**
   * Queues a copy of a registered device's state, in turn with all other calls. While `send()` runs,
   * only threads with a `DeviceClient` of their own can queue.
   *
   * @param config Whether this is the device's config, its last buffer.
   * @throws {RangeError} when the device is not registered.
   */
  async queueDeviceState(
    idstr: string,
    instanceId: number,
    bytes: Uint8Array,
    config = false,
  ): Promise<void> {
    if (new DeviceTable(this.deviceClient.devices).find(idstr, instanceId) === undefined) {
      throw new RangeError(
        `Cannot queue device state: device ${idstr} instance ${instanceId} is not registered`,
      );
    }
    await this.#call("deviceState", idstr, instanceId, bytes, config);
  }

  /** What has been queued of each device so far. */
  deviceProgress(): DeviceProgress[] {
    return queuedProgress(this.#deviceClient);
  }

  /** Ends a round: nothing queued later is put in place before what was queued so far. */
  async sync(): Promise<void> {
    await this.#call("sync");
  }

  /**
   * Ends the migration and waits for the receiver's confirmation that all of it is in place.
   *
   * @returns The final statistics.
   */
  async complete(): Promise<Statistics> {
    await this.#call("complete");
    return this.statistics();
  }

  /** Counters as of now, at any time, after a failure too. */
  statistics(): Statistics {
    return this.#table.snapshot(this.#channels, this.#pageSize);
  }

  /** Ends the session and releases everything; safe to call twice and in any state. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#thread.stop();
  }

  #call<Name extends NameOf<SenderCalls>>(
    name: Name,
    ...values: Parameters<SenderCalls[Name]>
  ): Promise<ResultOf<SenderCalls, Name>> {
    this.#postList();
    return this.#thread.call(name, ...values);
  }

  #postList(): void {
    if (this.#list.length === 0) return;
    const pages = Uint32Array.from(this.#list);
    this.#list = [];
    // A failure is recorded in the session, and the next call that waits reports it.
    void this.#thread.post("pages", this.#listBlock, pages);
  }

  #indexOf(block: RamBlock | string, first: number, end: number): number {
    const index = indexOfBlock(this.#blocks, block);
    checkPages(this.#blocks, index, first, end);
    return index;
  }
}

/**
 * Connects to a receiver and sends it the list of blocks.
 *
 * @returns A sender, ready to send; dispose it in any case.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {MultifdError} when connecting fails.
 *
 * @example
 * ```ts
 * await using sender = await connect({ endpoint: "127.0.0.1:4444", blocks: [block] });
 * await sender.send();
 * const { wireBytes } = await sender.complete();
 * ```
 */
export function connect(options: ConnectOptions): Promise<Sender> {
  return Sender.connect(options);
}
