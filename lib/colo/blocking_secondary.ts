/**
 * The secondary of a pair on the thread that runs its session: a receiver whose channels fill caches.
 * Guest memory changes only when a checkpoint is here as a whole, and then all of it does: the
 * threads that apply it know nothing of the session and finish even if that fails meanwhile.
 *
 * @module
 */
import type { StatisticsTable } from "../engine/statistics.ts";
import { CHECKPOINT_STATE_BYTES_MAX } from "../limits.ts";
import { PageCrew } from "../memory/page_crew.ts";
import { PageOperation } from "../memory/page_task.ts";
import { RamBlock } from "../memory/ram_block.ts";
import type { Endpoint } from "../net/endpoint.ts";
import { ReceiverSession, type ReceiverLink } from "../session/receiver_session.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import {
  awaitColoMessage,
  ColoMessage,
  expectColoMessage,
  sendColoMessage,
} from "../wire/colo_message.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import type { ReceivedCheckpoint, SecondaryConfig } from "./colo_messages.ts";
import { CHECKPOINT_PHASE, Step, type ColoProgress } from "./colo_progress.ts";
import type { CheckpointStatistics } from "./checkpoint_statistics.ts";
import { checkGuestSections, checkStateBytes, readBlob } from "./device_state_blob.ts";
import { LocalWrites } from "./local_writes.ts";
import { createStateQueue, StateChannel } from "./state_channel.ts";

/** What a secondary's thread has to tell; a call that waits for the caller returns when it may go on. */
interface SecondaryHooks {
  /** The blocks are known; no page has arrived yet. */
  onBlocks(blocks: readonly RamBlock[], caches: readonly RamBlock[], channels: number): void;
  /** The first migration is complete; `guest` is there when it was to be captured. */
  onReady(guest: GuestState | undefined): void;
  /** A checkpoint begins: returns when nobody uses the memory any more. */
  onRequest(): void;
  /** A checkpoint is in place: returns when its device state is loaded. */
  onCheckpoint(checkpoint: ReceivedCheckpoint): void;
  /** Both sides go on. */
  onLoaded(statistics: CheckpointStatistics): void;
}

/** See the module comment. */
export class BlockingSecondary implements Disposable {
  readonly #config: SecondaryConfig;
  readonly #hooks: SecondaryHooks;
  readonly #progress: ColoProgress;
  readonly #control: SessionControl;
  readonly #receiver: ReceiverSession;
  readonly #stateChannel: StateChannel;
  /** Alive until all channels have been joined. */
  readonly #caches: RamBlock[] = [];

  constructor(
    config: SecondaryConfig,
    hooks: SecondaryHooks,
    progress: ColoProgress,
    control: SessionControl,
    statistics: StatisticsTable,
  ) {
    this.#config = config;
    this.#hooks = hooks;
    this.#progress = progress;
    this.#control = control;
    const queue = createStateQueue();
    this.#stateChannel = new StateChannel(queue, control, config.timeouts.stallMs);
    // In the queue of the channels and in front of the caller, or on the main connection.
    const held = { bytes: 2 * CHECKPOINT_STATE_BYTES_MAX, what: "the state of checkpoints" };
    this.#receiver = new ReceiverSession(
      config,
      {
        onBlocks: (blocks, channels) => hooks.onBlocks(blocks, this.#caches, channels),
        sequel: {
          queue,
          held,
          makeCache: (block) => this.#makeCache(block),
          run: (link) => this.#follow(link),
        },
      },
      control,
      statistics,
    );
  }

  /** Opens the socket. */
  listen(): Endpoint {
    return this.#receiver.listen();
  }

  /** Receives the migration and then checkpoints, until the primary ends the connection in order. */
  run(): void {
    this.#receiver.complete();
  }

  [Symbol.dispose](): void {
    this.#receiver[Symbol.dispose]();
  }

  #makeCache(block: RamBlock): RamBlock {
    const { pageSize, prefault } = this.#config;
    const cache = RamBlock.allocate(block.idstr, block.bytes, { pageSize, prefault });
    this.#caches.push(cache);
    return cache;
  }

  #follow(link: ReceiverLink): void {
    // Started now, so that no thread is started while both sides stand still.
    using crew = new PageCrew(link.table, this.#config.threads - 1);
    using local = this.#config.revertLocalWrites
      ? new LocalWrites(this.#receiver.blocks, link.table, crew)
      : undefined;
    link.table.collecting = true;
    this.#control.phase = CHECKPOINT_PHASE;
    this.#progress.reach(0);
    this.#hooks.onReady(link.state);
    sendColoMessage(link.replies, ColoMessage.CHECKPOINT_READY);
    while (awaitColoMessage(link.reader, ColoMessage.CHECKPOINT_REQUEST, "await checkpoint")) {
      this.#takeCheckpoint(link, crew, local);
    }
  }

  #takeCheckpoint(link: ReceiverLink, crew: PageCrew, local: LocalWrites | undefined): void {
    const { reader, replies, stream } = link;
    this.#progress.step(Step.UNDER_WAY);
    const bytesBefore = this.#wireBytes(link);
    this.#hooks.onRequest();
    const pauseStart = performance.now();
    sendColoMessage(replies, ColoMessage.CHECKPOINT_REPLY);
    expectColoMessage(reader, ColoMessage.VMSTATE_SEND, "take checkpoint");
    stream.readCheckpoint();
    expectColoMessage(reader, ColoMessage.VMSTATE_SIZE, "take checkpoint");
    const deviceState = this.#readState(reader);
    // A channel may have failed behind its sync point, or carry what belongs to no checkpoint.
    this.#receiver.requireQuietChannels();
    sendColoMessage(replies, ColoMessage.VMSTATE_RECEIVED);
    const applyStart = performance.now();
    local?.fetch();
    this.#progress.step(Step.APPLYING);
    const pages = crew.runBlocking(PageOperation.APPLY);
    local?.forget();
    const epoch = this.#progress.epoch + 1;
    this.#progress.reach(epoch);
    const measured = {
      epoch,
      pages,
      wireBytes: this.#wireBytes(link) - bytesBefore,
      transferMs: applyStart - pauseStart,
    };
    const applyMs = performance.now() - applyStart;
    this.#hooks.onCheckpoint({ ...measured, deviceState, applyMs });
    sendColoMessage(replies, ColoMessage.VMSTATE_LOADED);
    const end = performance.now();
    this.#hooks.onLoaded({
      ...measured,
      stateBytes: deviceState.byteLength,
      applyMs: end - applyStart,
      pauseMs: end - pauseStart,
    });
  }

  #readState(reader: ByteReader): Uint8Array {
    const bytes = reader.u64();
    checkStateBytes(bytes);
    const blob = reader.bytes(bytes);
    if (this.#config.capture) {
      checkGuestSections(blob);
      return blob;
    }
    const state = readBlob(blob);
    return typeof state === "number" ? this.#stateChannel.take(state) : state;
  }

  #wireBytes({ reader }: ReceiverLink): number {
    return this.#receiver.statistics().multifdBytes + reader.position;
  }
}
