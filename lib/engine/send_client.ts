/**
 * The RAM client: collects pages of one block until a job is full and hands it to a channel
 * (engine description, sections 1.2 and 1.5).
 *
 * @module
 */
import { TimeoutError } from "../errors.ts";
import { PACED_JOB_MS, PACKETS_PER_JOB_MIN } from "../limits.ts";
import { BandwidthShare } from "../sync/bandwidth_limit.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { packetPages } from "../wire/packet.ts";
import type { SendState } from "./send_state.ts";
import { Payload, type Slot } from "./slot.ts";

/** See the module comment. Used by one thread at a time. */
export class RamClient {
  readonly #state: SendState;
  readonly #control: SessionControl;
  readonly #limitMs: number;
  readonly #bandwidth: BandwidthShare | undefined;
  /** Fewest pages of a job, unless there are no more. */
  readonly #jobPagesMin: number;
  #slotNumber: number;
  #slot: Slot;
  /** Pages of the job being collected; chosen with its first page. */
  #jobPages = 0;

  /**
   * @param client Number of this client, below the session's client count.
   * @param limitMs How long to wait for an idle channel while nothing moves, in milliseconds.
   * @param bandwidth Of the limit on bandwidth, which makes jobs shorter; undefined for none.
   */
  constructor(
    state: SendState,
    control: SessionControl,
    client: number,
    limitMs: number,
    bandwidth?: SharedArrayBuffer,
  ) {
    if (bandwidth !== undefined) this.#bandwidth = new BandwidthShare(bandwidth);
    this.#state = state;
    this.#control = control;
    this.#limitMs = limitMs;
    this.#jobPagesMin = PACKETS_PER_JOB_MIN * packetPages(state.handle.pageSize);
    this.#slotNumber = state.clientSlot(client);
    this.#slot = state.slots[this.#slotNumber]!;
    this.#slot.type = Payload.NONE;
    this.#slot.pageCount = 0;
  }

  /** Jobs handed over so far. */
  jobs = 0;

  /** Pages collected and not handed over yet. */
  get pending(): number {
    return this.#slot.pageCount;
  }

  /**
   * Adds pages from `first` on until `end` or until the job is full; returns the first page that
   * was not added. A full job is handed over before anything is added.
   */
  queuePages(blockIndex: number, first: number, end: number): number {
    const started = this.#slot.pageCount > 0;
    if (started && (this.#slot.blockIndex !== blockIndex || this.#isFull())) this.flush();
    const slot = this.#slot;
    const { pages } = slot;
    let count = slot.pageCount;
    if (count === 0) this.#jobPages = this.#chooseJobPages(end - first, pages.length);
    const stop = Math.min(end, first + this.#jobPages - count);
    for (let page = first; page < stop; page++) pages[count++] = page;
    slot.blockIndex = blockIndex;
    slot.pageCount = count;
    return stop;
  }

  #isFull(): boolean {
    return this.#slot.pageCount === this.#jobPages;
  }

  /** At most a channel's share of what is left, so that none has a long job when all are idle. */
  #chooseJobPages(left: number, most: number): number {
    const { channels, pageSize } = this.#state.handle;
    const share = Math.ceil(left / channels);
    const pages = Math.min(most, Math.max(this.#jobPagesMin, share));
    if (this.#bandwidth === undefined) return pages;
    const paced = Math.floor(this.#bandwidth.bytesWithin(PACED_JOB_MS) / pageSize);
    return Math.min(pages, Math.max(packetPages(pageSize), paced));
  }

  /**
   * Hands over what has been collected, if anything.
   *
   * @throws The session's first error when it has failed, {TimeoutError} when no channel got idle.
   */
  flush(): void {
    if (this.#slot.pageCount === 0) return;
    this.#slot.type = Payload.RAM;
    const empty = this.#state.handOff(this.#slotNumber, this.#limitMs);
    if (empty < 0) {
      this.#control.throwIfFailed();
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_STALL",
        `Cannot send pages: no channel got idle within ${this.#limitMs} ms`,
      );
    }
    this.jobs++;
    this.#slotNumber = empty;
    this.#slot = this.#state.slots[empty]!;
    this.#slot.type = Payload.NONE;
    this.#slot.pageCount = 0;
  }
}
