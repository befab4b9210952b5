/**
 * The destination of a migration on its thread: it accepts the connections of one migration, reads the
 * main connection on the calling thread and the channels on workers. Behind `Receiver`, on a worker of
 * its own, behind `BlockingReceiver`, and behind what goes on after a migration.
 *
 * @module
 */
import type { DeviceQueueHandle } from "../engine/device_queue.ts";
import { RoundCounter } from "../engine/round_counter.ts";
import { StatisticsTable, type MainCounters, type Statistics } from "../engine/statistics.ts";
import { clearMemory } from "../../ffi/libc.ts";
import { LimitError } from "../errors.ts";
import { CHANNELS_MAX } from "../limits.ts";
import { BlockTable, pageAddress } from "../memory/block_table.ts";
import { pagesArriving } from "../memory/page_cache.ts";
import { RamBlock } from "../memory/ram_block.ts";
import type { Connection } from "../net/connection.ts";
import type { Endpoint } from "../net/endpoint.ts";
import { SessionControl } from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import type { AnnouncedBlock, StreamConfiguration } from "../wire/main_stream.ts";
import { MainStreamReader } from "../wire/main_stream_reader.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { formatUuid } from "../wire/uuid.ts";
import { compareDigests } from "./digests.ts";
import { ReceiveSide } from "./receive_side.ts";
import { ReceiverDevices } from "./receiver_devices.ts";
import { refuseSource } from "./last_words.ts";
import type { ReceiverConfig } from "./session_config.ts";
import { MemoryBudget } from "./memory_budget.ts";
import { checkConfiguration, mismatch } from "./mismatch.ts";
import { ReceiverStream, type StreamTarget } from "./receiver_stream.ts";
import { missingReturnPath, type SessionWarning } from "./session_warning.ts";

/** Hooks of the thread that runs a receiver. */
interface ReceiverHooks {
  /** Something that a caller should know at once. */
  onWarning?: ((warning: SessionWarning) => void) | undefined;
  /** The blocks are known and their memory is ready; no page has arrived yet. */
  onBlocks?: ((blocks: readonly RamBlock[], channels: number) => void) | undefined;
  /**
   * All data is in place; when it throws, the sender is told that the migration failed. `state` is
   * there when it was to be captured.
   */
  finalize?: ((blocks: readonly RamBlock[], state: GuestState | undefined) => void) | undefined;
  /** What goes on afterwards; absent where the migration is all. */
  sequel?: Sequel | undefined;
}

/** What goes on over the connections of a migration that is complete. */
interface Sequel {
  /** A device whose buffers it takes. */
  readonly queue: DeviceQueueHandle;
  /** What it can be made to hold beside blocks and their caches, for the budget of the session. */
  readonly held: { readonly bytes: number; readonly what: string };
  /**
   * Makes the cache that is received into in place of a block (see `memory/page_cache.ts`), and keeps
   * it alive until the receiver is disposed.
   */
  makeCache(block: RamBlock): RamBlock;
  /** The migration is complete and the sender knows; connections stay open until this returns. */
  run(link: ReceiverLink): void;
}

/** A receiver's main connection and blocks, for a {@linkcode Sequel}. */
export interface ReceiverLink {
  readonly reader: ByteReader;
  readonly replies: ByteWriter;
  /** Knows the RAM section of the migration. */
  readonly stream: MainStreamReader;
  readonly table: BlockTable;
  /** What was not RAM, if it was captured. */
  readonly state: GuestState | undefined;
}

/** See the module comment. Used by one thread. */
export class ReceiverSession implements Disposable {
  readonly #config: ReceiverConfig;
  readonly #control: SessionControl;
  readonly #statistics: StatisticsTable;
  readonly #counters: MainCounters;
  readonly #rounds: RoundCounter;
  readonly #hooks: ReceiverHooks;
  readonly #table: BlockTable;
  readonly #side: ReceiveSide;
  readonly #devices: ReceiverDevices;
  /** What the source may still make this side hold. */
  readonly #budget: MemoryBudget;
  #blocks: readonly RamBlock[] = [];
  #kept: Disposable | undefined;
  #uuid: Uint8Array;

  /** Starts the channels' threads if their number is known; `listen()` opens the socket. */
  constructor(
    config: ReceiverConfig,
    hooks: ReceiverHooks = {},
    control = new SessionControl(),
    statistics = new StatisticsTable(config.channels ?? CHANNELS_MAX),
  ) {
    this.#config = config;
    this.#uuid = config.uuid;
    this.#hooks = hooks;
    this.#control = control;
    this.#statistics = statistics;
    this.#counters = statistics.main();
    this.#rounds = new RoundCounter(statistics, [this.#counters]);
    const given = config.blocks?.reduce(
      (sum, { segments }) => sum + segments.reduce((bytes, segment) => bytes + segment.bytes, 0),
      0,
    );
    const { sequel } = hooks;
    const copies = sequel === undefined ? 1 : 2;
    this.#table = new BlockTable(copies * (given ?? config.ramBytesMax));
    this.#budget = new MemoryBudget(config.heldBytesLeft, copies * (given ?? config.ramBytesMax));
    if (sequel !== undefined) this.#budget.take(sequel.held.bytes, sequel.held.what);
    this.#devices = new ReceiverDevices(config.devices, control, config.timeouts.idleMs);
    this.#side = new ReceiveSide({
      config,
      channels: config.channels,
      anyUuid: config.anyUuid,
      control,
      statistics,
      onWarning: hooks.onWarning,
      blocks: this.#table.handle,
      devices: [
        ...config.devices.map(({ queue }) => queue),
        ...(sequel === undefined ? [] : [sequel.queue]),
      ],
    });
  }

  /** Disposes `resource`, which the threads use, when they have ended; see `ServiceThread.keep()`. */
  keep(resource: Disposable): void {
    this.#kept = resource;
  }

  /** Opens the socket; returns where it listens, with the port that was chosen for port 0. */
  listen(): Endpoint {
    return this.#guarded(() => {
      this.#control.phase = "start";
      return this.#side.listen();
    });
  }

  /** Receives one migration; returns when all of it is in place and the sender has been told. */
  complete(): Statistics {
    return this.#guarded(() => {
      this.#control.phase = "connect";
      const { main, uuid } = this.#side.accept((refused, error) =>
        refuseSource(refused, error, "connect"),
      );
      // A source writes its main stream when a buffer is full, which may be in the middle of a record.
      const connection = main.attach(this.#control, this.#config.timeouts, "with-session");
      this.#uuid = uuid;
      const handler = new ReceiverStream(this.#target(), connection);
      this.#control.phase = "setup";
      const reader = new ByteReader(connection);
      const stream = new MainStreamReader(reader, handler, this.#config.pageSize);
      const { sequel } = this.#hooks;
      let state: GuestState | undefined;
      try {
        stream.readAll();
        this.#control.throwIfFailed();
        this.#devices.finish(() => handler.requireSource(connection));
        if (sequel !== undefined) this.requireQuietChannels();
        else this.#requireEnd(reader, connection);
        handler.verify();
        this.#control.phase = "end";
        state = handler.guestState(this.#uuid);
        this.#hooks.finalize?.(this.#blocks, state);
      } catch (error) {
        // A source that is refused may have done nothing wrong. One of ours gets over it at once.
        const delayed = this.#control.phase === "setup" && !handler.understands;
        if (delayed) this.#side.delayRefusal(error);
        this.#reportFailure(handler, connection, error);
        throw error;
      } finally {
        this.#counters.addBytes(reader.position);
      }
      this.#confirm(handler, connection, sequel === undefined); // else there is more to come
      this.#counters.endSwitchover();
      const replies = new ByteWriter(connection);
      try {
        sequel?.run({ reader, replies, stream, table: this.#table, state });
      } catch (error) {
        this.#reportFailure(handler, connection, error);
        throw error;
      }
      this.#counters.end();
      this.#control.finish();
      this[Symbol.dispose]();
      return this.statistics();
    });
  }

  /** Blocks received into; empty until the sender has announced them. */
  get blocks(): readonly RamBlock[] {
    return this.#blocks;
  }

  /** Counters as of now; readable after the end and after a failure. */
  statistics(): Statistics {
    return this.#statistics.snapshot(this.#side.channels, this.#config.pageSize);
  }

  /** Stops everything, joins the channels and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#control.finish();
    this.#devices[Symbol.dispose]();
    this.#side.join();
    this.#control.closeDescriptors();
    if (!this.#control.threadsLeft) this.#kept?.[Symbol.dispose]();
  }

  /** Waits until every channel stands at the same sync point, then lets all of them go on. */
  #passSyncPoint(): void {
    this.#side.awaitSyncPoint();
    this.#rounds.syncPoint(this.#side.channels);
    this.#side.releaseChannels();
  }

  /**
   * Checks, for a session that goes on, that nothing is left on any channel.
   *
   * @throws {PacketError} when something is.
   */
  requireQuietChannels(): void {
    this.#side.requireQuietChannels();
    this.#control.throwIfFailed();
  }

  /** Clears a page that arrived as a zero record on the main connection. */
  #placeZeroPage(idstr: string, offset: number): void {
    const block = this.#table.find(idstr)!; // the section reader knows only announced blocks
    const page = offset / block.pageSize;
    pagesArriving(block, Uint32Array.of(page), 0, 1);
    if (!block.received.set(page) || !block.zeroed) {
      clearMemory(pageAddress(block, page), block.pageSize);
    }
    this.#counters.addZeroPages(1);
  }

  /** Compares the received blocks with the sender's digests. */
  #compareDigests(digests: ReadonlyMap<string, Uint8Array>): void {
    this.#control.phase = "complete";
    compareDigests(this.#blocks, digests);
  }

  /** This side as the main stream sees it. */
  #target(): StreamTarget {
    return {
      config: this.#config,
      goesOn: this.#hooks.sequel !== undefined,
      budget: this.#budget,
      checkConfiguration: (configuration) => this.#checkConfiguration(configuration),
      missReturnPath: () => this.#missReturnPath(),
      takeBlocks: (announced) => this.#takeBlocks(announced),
      placeZeroPage: (idstr, offset) => this.#placeZeroPage(idstr, offset),
      passSyncPoint: () => this.#passSyncPoint(),
      compareDigests: (digests) => this.#compareDigests(digests),
      switchOver: () => this.#counters.startSwitchover(),
      startDevices: () => this.#devices.start(),
      expectDevices: (summary) => this.#devices.expect(summary),
    };
  }

  /** Both the channels and the main stream must end here. */
  #requireEnd(reader: ByteReader, connection: Connection): void {
    this.#side.endChannels();
    if (reader.buffered > 0 || connection.hasUnreadBytes()) {
      throw mismatch("ENDED", "there is more behind the end of the main stream");
    }
  }

  /** Tells the sender why, which is the first failure: what it does then is no better reason. */
  #reportFailure(handler: ReceiverStream, connection: Connection, error: unknown): void {
    this.#control.record(error, { side: "destination", peer: this.#side.peer });
    handler.reportFailure(connection, this.#control.error ?? error, this.#control.phase);
  }

  /** Tells the sender. Whoever hears of it there may cancel at once, which must change nothing here. */
  #confirm(handler: ReceiverStream, connection: Connection, completes: boolean): void {
    this.#control.noteCompleted(completes);
    try {
      handler.confirm();
      if (completes) handler.requireSourceEnd(connection);
    } catch (error) {
      this.#control.noteCompleted(false);
      throw error;
    }
  }

  /** Checks what the stream says about its source. */
  #checkConfiguration(configuration: StreamConfiguration): void {
    const { machine, uuid } = configuration;
    if (this.#config.machine !== undefined && machine !== this.#config.machine) {
      throw mismatch("MACHINE", `machine is ${machine}, must be ${this.#config.machine}`);
    }
    checkConfiguration(configuration, this.#config.pageSize);
    if (uuid !== undefined && !uuid.every((byte, at) => byte === this.#uuid[at])) {
      throw mismatch("UUID", `uuid is ${formatUuid(uuid)}, must be ${formatUuid(this.#uuid)}`);
    }
  }

  /** Refuses a source without a return path, or tells of it. */
  #missReturnPath(): void {
    const warning = missingReturnPath("accept migration", this.#config.requireReturnPath);
    this.#hooks.onWarning?.(warning);
  }

  /** Matches the announced blocks with given memory, or allocates it. */
  #takeBlocks(announced: readonly AnnouncedBlock[]): void {
    const { blocks: given, ramBytesMax } = this.#config;
    const total = announced.reduce((sum, { bytes }) => sum + bytes, 0);
    if (given === undefined && total > ramBytesMax) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_RAM",
        `Cannot allocate RAM blocks: the sender announces ${total} bytes, at most ${ramBytesMax} are allowed`,
      );
    }
    const { sequel } = this.#hooks;
    const copies = (given === undefined ? 1 : 0) + (sequel === undefined ? 0 : 1);
    this.#budget.take(copies * total, copies === 1 ? "RAM blocks" : "RAM blocks and their caches");
    this.#blocks =
      given === undefined
        ? announced.map((block) => this.#allocate(block))
        : this.#match(announced);
    for (const block of this.#blocks) {
      const cache = sequel?.makeCache(block);
      if (cache === undefined) this.#table.add(block);
      else this.#table.add(cache, block);
      block.markWritten();
    }
    this.#counters.setRamBytes(total);
    this.#counters.start();
    this.#control.phase = "transfer";
    this.#hooks.onBlocks?.(this.#blocks, this.#side.channels);
  }

  #allocate({ idstr, bytes }: AnnouncedBlock): RamBlock {
    const { pageSize, prefault } = this.#config;
    return RamBlock.allocate(idstr, bytes, { pageSize, prefault });
  }

  #match(announced: readonly AnnouncedBlock[]): RamBlock[] {
    const given = this.#config.blocks!;
    const names = announced.map(({ idstr }) => idstr);
    const missing = given.find(({ idstr }) => !names.includes(idstr));
    if (missing !== undefined) {
      throw mismatch(
        "BLOCKS",
        `RAM block ${missing.idstr} is not announced, the lists must be equal`,
      );
    }
    return announced.map(({ idstr, bytes }) => {
      const found = given.find((block) => block.idstr === idstr);
      if (found === undefined) {
        throw mismatch(
          "BLOCKS",
          `RAM block ${JSON.stringify(idstr)} is announced and unknown here`,
        );
      }
      const block = RamBlock.attach(found);
      if (block.bytes !== bytes) {
        throw mismatch("BLOCKS", `RAM block ${idstr} has ${bytes} bytes, must be ${block.bytes}`);
      }
      return block;
    });
  }

  /** Runs a step; its failure becomes the session's first error unless there is one already. */
  #guarded<Result>(step: () => Result): Result {
    this.#control.throwIfFailed();
    try {
      return this.#control.speaking(step);
    } catch (error) {
      this.#control.fail(error, { side: "destination", peer: this.#side.peer });
      this.#counters.end();
      throw this.#control.error ?? error;
    }
  }
}
