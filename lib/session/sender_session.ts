/**
 * The source of a migration on its thread: the main connection on the calling thread, the channels on
 * workers, and the phases one by one. Behind `Sender`, on a worker of its own, behind
 * `BlockingSender`, and behind what goes on after a migration.
 *
 * @module
 */
import { ZeroPageFinder } from "../engine/page_stage.ts";
import { RamClient } from "../engine/send_client.ts";
import { SendState } from "../engine/send_state.ts";
import { StatisticsTable, type MainCounters, type Statistics } from "../engine/statistics.ts";
import { saveConfig, type DeviceDefinition } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import { DEVICE_SLOTS } from "../limits.ts";
import { checkPages } from "../memory/block_list.ts";
import { BlockTable } from "../memory/block_table.ts";
import { PageBitmap } from "../memory/page_bitmap.ts";
import { RamBlock } from "../memory/ram_block.ts";
import { trackDirtyPagesBlocking } from "../memory/track_dirty_pages.ts";
import type { Connection } from "../net/connection.ts";
import { formatEndpoint } from "../net/endpoint.ts";
import { SessionControl } from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { MainStreamWriter, type RamSectionKind } from "../wire/main_stream_writer.ts";
import { ReturnPathReader } from "../wire/return_path.ts";
import { writeOwnSection } from "../wire/own_sections.ts";
import { digestSection } from "./digests.ts";
import type { SenderConfig } from "./session_config.ts";
import { deviceSummarySection } from "./device_summary.ts";
import { failExplained } from "./lost_destination.ts";
import { SendSide } from "./send_side.ts";
import { SenderDevices } from "./sender_devices.ts";
import { awaitAnswer, awaitRound, writeStreamStart } from "./sender_setup.ts";

const RAM_CLIENT = 0;

/** See the module comment. Used by one thread. */
export class SenderSession implements Disposable {
  readonly #config: SenderConfig;
  readonly #control: SessionControl;
  readonly #statistics: StatisticsTable;
  readonly #counters: MainCounters;
  readonly #blocks: readonly RamBlock[];
  readonly #table: BlockTable;
  readonly #state: SendState;
  readonly #client: RamClient;
  readonly #zeroPages: ZeroPageFinder;
  readonly #side: SendSide;
  readonly #devices: SenderDevices;
  #connection: Connection | undefined;
  #out: ByteWriter | undefined;
  #writer: MainStreamWriter | undefined;
  #replies: ByteReader | undefined;
  #returnPath: ReturnPathReader | undefined;
  #sectionOpen = false;
  #started = false;
  /** Jobs that had been handed over when the destination was last heard. */
  #heardAt = 0;
  #failed = false; // and the reason has been looked for
  #migrated = false; // confirmed, and the return path has other messages from then on

  /** Starts the channels' threads; nothing is connected before `connect()`. */
  constructor(
    config: SenderConfig,
    control = new SessionControl(),
    statistics = new StatisticsTable(config.channels),
  ) {
    const { channels, pageSize, timeouts, blocks } = config;
    this.#config = config;
    this.#control = control;
    this.#statistics = statistics;
    this.#counters = statistics.main();
    this.#blocks = blocks.map((block) => RamBlock.attach(block));
    const ramBytes = this.#blocks.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#counters.setRamBytes(ramBytes);
    this.#table = new BlockTable(ramBytes);
    for (const block of this.#blocks) this.#table.add(block);
    this.#state = SendState.create({ channels, clients: 1 + DEVICE_SLOTS, pageSize }, control);
    this.#devices = new SenderDevices(this.#state, control, timeouts);
    this.#zeroPages = new ZeroPageFinder(pageSize);
    this.#client = new RamClient(
      this.#state,
      control,
      RAM_CLIENT,
      timeouts.stallMs,
      config.bandwidth,
    );
    this.#side = new SendSide({
      config,
      channels,
      detectZeroPages: config.zeroPageDetection === "multifd",
      bandwidth: config.bandwidth,
      control,
      statistics,
      state: this.#state,
      blocks: this.#table.handle,
      devices: config.devices.length > 0,
      descriptors: 0,
    });
    for (const device of config.devices) this.#devices.register(device);
  }

  /** Connects the main connection, then all channels, and sends the block list. */
  connect(): void {
    this.#during("connect", () => {
      const connection = this.#side.connect().attach(this.#control, this.#config.timeouts);
      this.#connection = connection;
      this.#out = new ByteWriter(this.#side.mainSink(connection));
      this.#writer = new MainStreamWriter(this.#out, this.#config.state?.ramSectionId);
      this.#replies = new ByteReader(connection);
      if (this.#config.returnPath) this.#returnPath = new ReturnPathReader(this.#replies);
    });
    this.#during("setup", () => this.#setup());
  }

  /** Sends every page of every block once, and synchronises. */
  send(): void {
    this.#during("transfer", () => {
      this.#begin();
      this.#counters.addRound();
      for (const block of this.#table.blocks) this.#queue(block.index, 0, block.pages);
      this.#syncPoint();
    });
  }

  /**
   * Sends every page, then `rounds - 1` times what has changed since, each time after a pause.
   * Memory that other threads or processes still write to needs a last round when they are quiet.
   */
  sendRounds(rounds: number, roundDelayMs = 0): void {
    // Tracking comes first: whatever changes after it is found by the first fetch.
    using trackers = new DisposableStack();
    const tracked =
      rounds > 1 ? this.#blocks.map((block) => trackers.use(trackDirtyPagesBlocking(block))) : [];
    this.send();
    for (let round = 1; round < rounds; round++) {
      this.#during("transfer", () => {
        awaitRound(roundDelayMs, this.#control, () => this.#requireDestination());
        this.#counters.addRound();
        tracked.forEach((tracker, index) => {
          const changed = new PageBitmap(this.#blocks[index].pages);
          tracker.fetchBlocking(changed);
          this.#queueRuns(index, changed);
        });
        this.#syncPoint();
      });
    }
  }

  /** Queues pages `first` up to, not including, `end` of the block with that index. */
  queueRange(blockIndex: number, first: number, end: number): void {
    checkPages(this.#table.blocks, blockIndex, first, end);
    this.#during("transfer", () => {
      this.#begin();
      this.#queue(blockIndex, first, end);
    });
  }

  /** Queues single pages. */
  queuePages(blockIndex: number, pages: Uint32Array): void {
    for (const page of pages) checkPages(this.#table.blocks, blockIndex, page, page + 1);
    this.#during("transfer", () => {
      this.#begin();
      for (const page of pages) this.#queue(blockIndex, page, page + 1);
    });
  }

  /** Fetches all set bits of a dirty bitmap, clearing them, and queues their pages. */
  queueBitmap(blockIndex: number, dirty: PageBitmap): void {
    checkPages(this.#table.blocks, blockIndex, 0, dirty.pages);
    this.#during("transfer", () => {
      this.#begin();
      this.#counters.addRound();
      const fetched = new PageBitmap(dirty.pages);
      dirty.drainInto(fetched);
      this.#queueRuns(blockIndex, fetched);
    });
  }

  /**
   * Registers a device: its `save` runs at the completion phase. Buffers for device state are
   * allocated with the first one.
   *
   * @throws {RangeError | TypeError} for a device that cannot work in this session.
   */
  registerDevice(device: DeviceDefinition): void {
    this.#control.throwIfFailed();
    this.#devices.register(saveConfig(device, this.#config.deviceTransport));
  }

  /** Makes clients for device state in any thread; undefined before a device is registered. */
  get deviceClient(): DeviceClientHandle | undefined {
    return this.#devices.handle;
  }

  /** Queues a copy of a registered device's state; see `DeviceClient.queueDeviceState()`. */
  queueDeviceState(idstr: string, instanceId: number, bytes: Uint8Array, config = false): void {
    this.#during("transfer", () => {
      this.#begin();
      this.#devices.client().queueDeviceState(idstr, instanceId, bytes, config);
    });
  }

  /** Ends a round: no page queued later is put in place before those queued so far. */
  sync(): void {
    this.#during("transfer", () => this.#syncPoint());
  }

  /**
   * Sends what is left, ends the stream and waits until the receiver confirms that all of it is in
   * place. No other thread may write to the blocks any more when digests are wanted. Threads and
   * connections are left to disposal.
   */
  awaitConfirmation(): void {
    this.endMigration();
    if (this.#config.returnPath) {
      this.#during("complete", () => this.#returnPath!.requireEnd());
      this.#connection!.endSending(); // the answer to the confirmation, at once as QEMU's
    }
    this.#control.noteCompleted();
    this.#during("complete", () => this.#side.endChannels());
    this.#counters.end();
    this.#control.phase = "end";
  }

  /** The same but for the last step, and with all connections left open, for a session that goes on. */
  endMigration(): void {
    this.#during("complete", () => {
      const { state, switchoverAck } = this.#config;
      if (switchoverAck) this.#returnPath!.awaitSwitchoverAck();
      this.#closeSection();
      if (state?.switchoverStart ?? true) this.#switchOver();
      this.#openSection("end");
      this.#syncPoint("end");
      this.#devices.joinSaves();
      if (state === undefined) this.#endStream();
      else this.#writer!.verbatim(state.devices);
      this.#requireDestination(); // the last bytes are still here
      this.#flushMain();
      if (this.#config.returnPath) this.#returnPath!.awaitShut();
      this.#migrated = true;
      this.#counters.endSwitchover();
    });
  }

  /** Sends what was queued after the migration as RAM of its own, with an end mark. */
  endRam(phase: string): void {
    this.#during(phase, () => {
      this.#closeSection();
      this.#syncPoint("end");
      this.#writer!.endMark();
      this.#flushMain();
    });
  }

  /** Uses the main connection after the migration; what is written is flushed at the end. */
  converse(phase: string, step: (out: ByteWriter, replies: ByteReader) => void): void {
    this.#during(phase, () => {
      step(this.#out!, this.#replies!);
      this.#flushMain();
    });
  }

  /** Counters as of now; readable after the end and after a failure. */
  statistics(): Statistics {
    return this.#statistics.snapshot(this.#config.channels, this.#config.pageSize);
  }

  /** Stops everything, joins the channels and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#control.finish();
    this.#devices[Symbol.dispose]();
    this.#side.join();
    this.#control.closeDescriptors();
  }

  /** The final phase begins: the destination starts its load threads, and we our save threads. */
  #switchOver(): void {
    this.#counters.startSwitchover();
    this.#writer!.switchoverStart();
    this.#flushMain();
    this.#devices.startSaves();
  }

  /** Ends the stream of a sender that has no guest's state. */
  #endStream(): void {
    const writer = this.#writer!;
    const sections: object[] = [];
    if (this.#config.verify) sections.push(writeOwnSection(writer, digestSection, this.#blocks));
    const { registered } = this.#devices;
    if (registered.length > 0) {
      sections.push(writeOwnSection(writer, deviceSummarySection, registered));
    }
    writer.end({ page_size: this.#config.pageSize, devices: sections });
  }

  #setup(): void {
    const writer = this.#writer!;
    writeStreamStart(writer, this.#config);
    writer.beginRamSection("start");
    writer.blockList(this.#table.blocks);
    this.#sectionOpen = true;
    this.#syncPoint("start");
    const { timeouts, returnPath } = this.#config;
    if (returnPath) awaitAnswer(this.#returnPath!, this.#control, timeouts.connectMs);
  }

  #begin(): void {
    if (this.#started) return;
    this.#started = true;
    this.#counters.start();
  }

  #queueRuns(blockIndex: number, pages: PageBitmap): void {
    for (const { start, end } of pages.runs()) this.#queue(blockIndex, start, end);
  }

  #queue(blockIndex: number, first: number, end: number): void {
    if (this.#config.zeroPageDetection === "legacy") {
      return this.#queueLegacy(blockIndex, first, end);
    }
    for (let page = first; page < end;) {
      page = this.#client.queuePages(blockIndex, page, end);
      this.#hear();
    }
  }

  /** Queues normal pages and writes a record to the main connection for each zero page. */
  #queueLegacy(blockIndex: number, first: number, end: number): void {
    const block = this.#table.blocks[blockIndex];
    for (let page = first; page < end; page++) {
      if (this.#zeroPages.isZero(block, page)) {
        this.#openSection("part");
        this.#writer!.zeroPage(block, page);
        this.#counters.addZeroPages(1);
        continue;
      }
      this.#client.queuePages(blockIndex, page, page + 1);
      this.#hear();
    }
  }

  /** Hears what the destination says meanwhile, with each job that has gone to a channel. */
  #hear(): void {
    if (this.#client.jobs !== this.#heardAt) this.#requireDestination();
    this.#heardAt = this.#client.jobs;
  }

  /** Ends a section that has been begun; commands stand between sections. */
  #closeSection(): void {
    if (this.#sectionOpen) this.#syncPoint();
  }

  #openSection(kind: RamSectionKind): void {
    if (!this.#sectionOpen) this.#writer!.beginRamSection(kind);
    this.#sectionOpen = true;
  }

  /** Flushes the client, synchronises all channels, marks the point on the main connection. */
  #syncPoint(kind: RamSectionKind = "part"): void {
    this.#openSection(kind);
    this.#client.flush();
    this.#side.syncChannels();
    if (this.#config.syncMode === "round") this.#writer!.syncMarker();
    this.#writer!.endRamSection();
    this.#sectionOpen = false;
    this.#flushMain();
    this.#requireDestination();
  }

  /** Checks that the destination has not ended the migration so far. */
  #requireDestination(): void {
    if (!this.#migrated) this.#returnPath?.requireOpen();
  }

  #flushMain(): void {
    const out = this.#out!;
    out.flush();
    this.#counters.addBytes(out.position - this.#counters.bytes);
  }

  /** Runs a step; its failure becomes the session's first error unless there is one already. */
  #during(phase: string, step: () => void): void {
    this.#control.speaking(() => {
      const control = this.#control;
      try {
        control.throwIfFailed();
        control.phase = phase;
        step();
      } catch (error) {
        const peer = formatEndpoint(this.#config.endpoint);
        if (!this.#failed) failExplained(error, control, peer, this.#returnPath, !this.#migrated);
        this.#failed = true;
        this.#counters.end();
        throw control.error ?? error;
      }
    });
  }
}
