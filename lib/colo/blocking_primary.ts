/**
 * The primary of a pair on the thread that runs its session: a sender that stays connected after the
 * migration and sends what changed, checkpoint by checkpoint (engine description, section 5).
 *
 * @module
 */
import type { StatisticsTable } from "../engine/statistics.ts";
import type { PageBitmap } from "../memory/page_bitmap.ts";
import { SenderSession } from "../session/sender_session.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { ColoMessage, expectColoMessage, sendColoMessage } from "../wire/colo_message.ts";
import type { PrimaryConfig } from "./colo_messages.ts";
import { CHECKPOINT_PHASE, Step, type ColoProgress } from "./colo_progress.ts";
import { blobAbout, blobWith } from "./device_state_blob.ts";
import { STATE_DEVICE } from "./state_channel.ts";

/** See the module comment. Every failure ends the session. */
export class BlockingPrimary implements Disposable {
  readonly #sender: SenderSession;
  readonly #progress: ColoProgress;
  readonly #stateOverChannels: boolean;

  constructor(
    config: PrimaryConfig,
    progress: ColoProgress,
    control: SessionControl,
    statistics: StatisticsTable,
  ) {
    this.#sender = new SenderSession(config, control, statistics);
    this.#progress = progress;
    this.#stateOverChannels = config.stateOverChannels;
  }

  /** Connects and sends the block list. */
  connect(): void {
    this.#sender.connect();
  }

  /** Sends everything and waits until the secondary is ready for checkpoints. */
  start(rounds: number, roundDelayMs: number): void {
    this.#sender.sendRounds(rounds, roundDelayMs);
    this.#sender.endMigration();
    this.#sender.converse(CHECKPOINT_PHASE, (_out, replies) => {
      expectColoMessage(replies, ColoMessage.CHECKPOINT_READY, "begin with checkpoints");
    });
    // Not before: the migration itself has no device.
    if (this.#stateOverChannels) this.#sender.registerDevice(STATE_DEVICE);
    this.#progress.reach(0);
  }

  /** Begins a checkpoint; returns when the secondary stands still. */
  request(): void {
    this.#progress.step(Step.UNDER_WAY);
    this.#sender.converse(CHECKPOINT_PHASE, (out, replies) => {
      sendColoMessage(out, ColoMessage.CHECKPOINT_REQUEST);
      expectColoMessage(replies, ColoMessage.CHECKPOINT_REPLY, "begin checkpoint");
    });
  }

  /**
   * Sends the pages of `dirty`, clearing them there, and the device state; returns when the secondary
   * has put them in place.
   *
   * @param dirty One bitmap for each block, in the blocks' order.
   * @returns Milliseconds until the secondary had everything.
   */
  commit(dirty: readonly PageBitmap[], deviceState: Uint8Array): number {
    const start = performance.now();
    const sender = this.#sender;
    sender.converse(CHECKPOINT_PHASE, (out) => sendColoMessage(out, ColoMessage.VMSTATE_SEND));
    for (const [index, bitmap] of dirty.entries()) sender.queueBitmap(index, bitmap);
    if (this.#stateOverChannels && deviceState.byteLength > 0) {
      sender.queueDeviceState(STATE_DEVICE.idstr, STATE_DEVICE.instanceId, deviceState);
    }
    sender.endRam(CHECKPOINT_PHASE);
    const parts = this.#stateOverChannels
      ? blobAbout(deviceState.byteLength)
      : blobWith(deviceState);
    let receivedMs = 0;
    sender.converse(CHECKPOINT_PHASE, (out, replies) => {
      out.u32(ColoMessage.VMSTATE_SIZE);
      out.u64(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
      // From the last byte on the secondary may have all of it.
      this.#progress.step(Step.SENT);
      for (const part of parts) out.bytes(part);
      out.flush();
      expectColoMessage(replies, ColoMessage.VMSTATE_RECEIVED, "finish checkpoint");
      receivedMs = performance.now();
      expectColoMessage(replies, ColoMessage.VMSTATE_LOADED, "finish checkpoint");
    });
    this.#progress.reach(this.#progress.epoch + 1);
    return receivedMs - start;
  }

  [Symbol.dispose](): void {
    this.#sender[Symbol.dispose]();
  }
}
