/**
 * A relay whose calls block: takes the destination's place towards a source and the source's place
 * towards a destination. The main connection runs on the calling thread, the way back and all channels
 * on workers. The asynchronous `Relay` runs one of these on a worker of its own.
 *
 * Both sides are one session: whatever fails, both are shut down, and each QEMU sees its migration
 * fail. The guest then goes on at the source.
 *
 * @module
 */
import { RoundCounter } from "../engine/round_counter.ts";
import { SendState } from "../engine/send_state.ts";
import type { MainCounters, StatisticsTable } from "../engine/statistics.ts";
import { StreamError } from "../errors.ts";
import { CHANNELS_MAX, RECEIVE_BYTES_DEFAULT } from "../limits.ts";
import { BlockTable } from "../memory/block_table.ts";
import { formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import type { SharedConnection } from "../net/open_link.ts";
import type { ReceivingHalf } from "../net/transport.ts";
import { refuseSource, tellFailure } from "../session/last_words.ts";
import type { SessionConfig } from "../session/session_config.ts";
import { ReceiveSide } from "../session/receive_side.ts";
import { SendSide } from "../session/send_side.ts";
import { missingReturnPath, type SessionWarning } from "../session/session_warning.ts";
import { SIDE_DESCRIPTORS, type SessionControl } from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { PEER_PING_VALUE } from "../wire/main_stream.ts";
import { MainStreamReader } from "../wire/main_stream_reader.ts";
import { WorkerGroup } from "../thread/worker_group.ts";
import type { RelayReturnJob, RelaySink } from "./relay_messages.ts";
import { createStage } from "./relay_placer.ts";
import type { RelayConfig } from "./relay_config.ts";
import { RelayStream, type RelayTarget } from "./relay_stream.ts";
import { Confirmation } from "./return_path_relay.ts";
import { StreamTail } from "./stream_tail.ts";

/** Hooks of the thread that runs a relay. */
interface RelayHooks {
  /** Something that a caller should know at once. */
  onWarning?: ((warning: SessionWarning) => void) | undefined;
  /** All connections are there, on both sides; so many channels on each. */
  onConnected?: ((incoming: number, outgoing: number) => void) | undefined;
}

/** See the module comment. Used by one thread, for one migration. */
export class BlockingRelay implements RelayTarget, Disposable {
  readonly table: BlockTable = new BlockTable(RECEIVE_BYTES_DEFAULT);
  readonly tail: StreamTail = new StreamTail();
  readonly #config: RelayConfig;
  readonly #control: SessionControl;
  readonly #outgoing: StatisticsTable;
  readonly #counters: readonly [incoming: MainCounters, outgoing: MainCounters];
  readonly #rounds: RoundCounter;
  readonly #hooks: RelayHooks;
  readonly #state: SendState;
  readonly #receiveSide: ReceiveSide;
  readonly #returnWorker: WorkerGroup;
  readonly #confirmation = new Confirmation();
  #sendSide: SendSide | undefined;
  #out: ByteWriter | undefined;
  /** The main connection of the source; another thread writes the answers. */
  #source: SharedConnection | undefined;
  #fromDestination: ReceivingHalf | undefined;
  #uuid: Uint8Array;
  #answers = false;

  /** Starts the incoming channels' threads if their number is known. */
  constructor(
    config: RelayConfig,
    control: SessionControl,
    incoming: StatisticsTable,
    outgoing: StatisticsTable,
    hooks: RelayHooks = {},
  ) {
    this.#config = config;
    this.#control = control;
    this.#outgoing = outgoing;
    this.#counters = [incoming.main(), outgoing.main()];
    this.#rounds = new RoundCounter(incoming, this.#counters);
    this.#hooks = hooks;
    this.#uuid = config.outgoing.uuid;
    const channels = config.outgoingChannels;
    const clients = config.incomingChannels ?? CHANNELS_MAX;
    const { pageSize } = config.incoming;
    this.#state = SendState.create({ channels, clients, pageSize }, control);
    this.#returnWorker = new WorkerGroup(control);
    this.#receiveSide = new ReceiveSide({
      config: config.incoming,
      channels: config.incomingChannels,
      anyUuid: true,
      control,
      statistics: incoming,
      onWarning: hooks.onWarning,
      blocks: this.table.handle,
      devices: [],
      sink: {
        role: "relay-channel",
        outgoing: this.#state.handle,
        stage: createStage(channels, clients),
      } satisfies RelaySink,
    });
  }

  /** Opens the socket; returns where it listens, with the port that was chosen for port 0. */
  listen(): Endpoint {
    return this.#guarded("destination", () => {
      this.#control.phase = "start";
      return this.#receiveSide.listen();
    });
  }

  /**
   * Relays one migration; returns when the destination has confirmed it, or without a return path
   * when the source has ended its stream and all of it is handed on.
   */
  run(): void {
    this.#control.speaking(() => this.#run());
  }

  #run(): void {
    const connection = this.#guarded("destination", () => {
      this.#control.phase = "connect";
      const { main, uuid } = this.#receiveSide.accept((refused, error) =>
        refuseSource(refused, error, "connect"),
      );
      if (this.#config.keepUuid) this.#uuid = uuid;
      const { incoming } = this.#config;
      // A source writes its main stream when a buffer is full, which may be in the middle of a record.
      return main.share(this.#control, incoming.timeouts, "with-session");
    });
    this.#source = connection;
    const reader = new ByteReader(connection.receiving);
    // The source has sent its first bytes and goes on; only now is the destination bothered.
    this.#guarded("source", () => {
      try {
        this.#connect();
      } catch (error) {
        const peer = formatEndpoint(this.#config.outgoing.endpoint);
        this.#receiveSide.delayRefusal(error, { side: "source", peer });
        refuseSource(connection.whole(), error, "connect");
        throw error;
      }
    });
    this.#guarded("destination", () => {
      this.#control.phase = "setup";
      try {
        new MainStreamReader(reader, new RelayStream(this), this.pageSize).readAll();
        this.#control.throwIfFailed();
        this.#checkEnd();
      } catch (error) {
        const delayed = this.#control.phase === "setup" && !this.#confirmation.sourceUnderstands;
        if (delayed) this.#receiveSide.delayRefusal(error);
        this.#tellSource(error);
        // Both sides know it has succeeded; the source had only to hang up.
        if (this.#confirmation.given) this.#control.noteCompleted();
        throw error;
      } finally {
        this.#counters[0].addBytes(reader.position);
        this.#counters[1].addBytes(this.out.position);
      }
      this.#control.noteCompleted();
      this.#sendSide!.endChannels();
      this.#control.phase = "end";
      for (const counters of this.#counters) {
        counters.endSwitchover(this.#confirmation.atMs);
        counters.end();
      }
      this.#control.finish();
      this[Symbol.dispose]();
    });
  }

  get out(): ByteWriter {
    return this.#out!;
  }

  get pageSize(): number {
    return this.#config.incoming.pageSize;
  }

  get uuid(): Uint8Array {
    return this.#uuid;
  }

  blocksKnown(): void {
    const bytes = this.table.blocks.reduce((sum, { pages }) => sum + pages * this.pageSize, 0);
    for (const counters of this.#counters) {
      counters.setRamBytes(bytes);
      counters.start();
    }
    this.#control.phase = "transfer";
  }

  openReturnPath(): void {
    if (this.#answers) return; // sources may open it twice
    this.#answers = true;
    this.#returnWorker.start({
      role: "relay-return",
      timeouts: this.#config.outgoing.timeouts,
      source: choiceWith(this.#config.incoming, this.#source!.lend()),
      destination: choiceWith(this.#config.outgoing, this.#fromDestination!),
      confirmation: this.#confirmation.buffer,
      tail: this.tail.buffer,
      control: this.#control.buffer,
      peer: formatEndpoint(this.#config.outgoing.endpoint),
    } satisfies RelayReturnJob);
  }

  pinged(value: number): void {
    this.#confirmation.sourceUnderstands = value === PEER_PING_VALUE;
  }

  checkReturnPath(): void {
    if (this.#answers) return;
    const warning = missingReturnPath("relay migration", this.#config.requireReturnPath);
    this.#hooks.onWarning?.(warning);
  }

  countZeroPage(): void {
    for (const counters of this.#counters) counters.addZeroPages(1);
  }

  synchronise(): void {
    this.#receiveSide.awaitSyncPoint();
    this.#rounds.syncPoint(this.#receiveSide.channels);
    this.#guarded("source", () => this.#sendSide!.syncChannels());
  }

  release(): void {
    this.#receiveSide.releaseChannels();
  }

  closeChannels(): void {
    this.#receiveSide.closeChannels();
  }

  completing(): void {
    this.#control.phase = "complete";
    for (const counters of this.#counters) counters.startSwitchover();
  }

  /** Stops everything, joins all threads and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#control.finish();
    this.#returnWorker.join(); // before the sides, to which the connections belong
    this.#receiveSide.join();
    this.#sendSide?.join();
    this.#control.closeDescriptors();
  }

  #connect(): void {
    const { outgoing, outgoingChannels, bandwidth } = this.#config;
    this.#sendSide = new SendSide({
      config: { ...outgoing, uuid: this.#uuid },
      channels: outgoingChannels,
      detectZeroPages: false,
      bandwidth,
      control: this.#control,
      statistics: this.#outgoing,
      state: this.#state,
      blocks: this.table.handle,
      devices: false,
      descriptors: SIDE_DESCRIPTORS,
    });
    const main = this.#sendSide.connect().split(this.#control, outgoing.timeouts);
    this.#fromDestination = main.receiving;
    const sink = this.#sendSide.mainSink(main.sending);
    // The steps that write here work for the incoming side, and an error must name the right one.
    this.#out = new ByteWriter({
      send: (address, bytes) => this.#guarded("source", () => sink.send(address, bytes)),
    });
    this.#hooks.onConnected?.(this.#receiveSide.channels, outgoingChannels);
  }

  /** Tells a source of this library why the relay fails; any other one sees its connections end. */
  #tellSource(error: unknown): void {
    const { given, sourceUnderstands } = this.#confirmation;
    if (given || !sourceUnderstands) return;
    const control = this.#control;
    control.fail(error, { side: "destination", peer: this.#receiveSide.peer });
    this.#returnWorker.join(); // it may know better, and speaks on the same connection
    if (this.#confirmation.sourceTold || control.threadsLeft) return;
    this.#source!.takeBack();
    const source = { connection: this.#source!.whole(), understands: true, migrates: true };
    tellFailure(source, control.error ?? error, control.phase);
  }

  /** The source has ended its stream: as it should, or because it gave up. */
  #checkEnd(): void {
    if (this.#answers ? this.#confirmation.given : this.tail.isComplete) return;
    throw new StreamError(
      "ERR_MULTIFD_STREAM_ENDED",
      this.#answers
        ? "Cannot relay migration: the source ended it before the destination confirmed"
        : "Cannot relay migration: the source ended it in the middle of the device state",
    );
  }

  /** Runs a step; its failure becomes the session's first error unless there is one already. */
  #guarded<Result>(side: "source" | "destination", step: () => Result): Result {
    this.#control.throwIfFailed();
    try {
      return step();
    } catch (error) {
      const { endpoint } = this.#config.outgoing;
      const peer = side === "source" ? formatEndpoint(endpoint) : this.#receiveSide.peer;
      this.#control.fail(error, { side, peer });
      for (const counters of this.#counters) counters.end();
      throw this.#control.error ?? error;
    }
  }
}

function choiceWith<Half>({ endpoint, tls }: SessionConfig, half: Half) {
  return { endpoint, tls, half };
}
