/**
 * The source of a guest that runs before its memory has arrived (main channel description, section 12):
 *
 * ```
 *   connect()  header, RETURN_PATH, PING 1 ─▶      ◀─ PONG 1
 *              ADVISE, early sections, RAM START ─▶
 *   serve()    DISCARD each block, PACKAGED { LISTEN, devices, PING 3, PING 0x42, RUN } ─▶
 *              pages ─▶   ◀─ requests, PONG 3, PONG 0x42 … answered first, on a connection of their own
 *              RAM END, end mark ─▶                                   with capability postcopy-preempt
 *              ◀─ SHUT 0
 *   recover()  RECV_BITMAP each block ─▶ ◀─ bitmaps;  RESUME ─▶ ◀─ RESUME_ACK;  pages as above
 * ```
 *
 * One thread does all of it: pages that were asked for go out between two lists of others, of which few
 * are under way at any time. How many that are, the destination says by answers to PINGs.
 *
 * @module
 */
import { ChannelError, SystemError, TimeoutError, toErrorRecord } from "../errors.ts";
import {
  LEARN_QUIET_MS,
  PACED_JOB_MS,
  PAGE_RETRY_MS,
  POSTCOPY_LISTS_MAX,
  POSTCOPY_PAGES_MAX,
  POSTCOPY_PAGES_MIN,
  WAIT_TICK_MS,
} from "../limits.ts";
import { formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import type { TlsConfig } from "../net/tls_options.ts";
import { PageSource } from "../snapshot/page_source.ts";
import { BandwidthShare } from "../sync/bandwidth_limit.ts";
import { pause } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import { PING_VALUE } from "../wire/main_stream.ts";
import { replyError, type PostcopyReplyHandler } from "../wire/postcopy_replies.ts";
import {
  PostcopyPing,
  writeBitmapRequest,
  writePackage,
  writePing,
  writeResume,
} from "../wire/postcopy_stream.ts";
import { endedByPeer } from "../wire/return_path.ts";
import { InstantLink } from "./instant_link.ts";
import type { InstantConfig, ServingEnd } from "./instant_messages.ts";
import type { InstantStatistics } from "./instant_statistics.ts";
import {
  explainInstant,
  readReceivedBitmap,
  writeInstantSetup,
  writeInstantStart,
} from "./instant_stream.ts";
import { packagedSections } from "./packaged_sections.ts";
import { OrderRecorder } from "./page_order.ts";
import { PagePlan } from "./page_plan.ts";
import type { PageSender } from "./page_sender.ts";

/** Hooks of the thread that runs a source. */
interface InstantHooks {
  onRunning(): void;
  onNotice(text: string): void;
}

/** See the module comment. Used by one thread. */
export class InstantSource implements PostcopyReplyHandler, Disposable {
  readonly #config: InstantConfig;
  readonly #control: SessionControl;
  readonly #statistics: InstantStatistics;
  readonly #hooks: InstantHooks;
  readonly #source: PageSource;
  readonly #units: readonly number[];
  readonly #plan: PagePlan;
  readonly #order: OrderRecorder | undefined;
  readonly #limit: BandwidthShare | undefined;
  /** Where the destination is. */
  #at: Pick<InstantConfig, "endpoint" | "tls">;
  #link: InstantLink | undefined;
  #answered = false;
  #switched = false;
  #hasRun = false;
  #resuming = false;
  #shut: number | undefined;
  /** Blocks whose bitmap was asked for and has not come. */
  #bitmaps = new Set<number>();
  /** PINGs behind lists: how many were sent, and how many of them the destination has answered. */
  #lists = 0;
  #listsPlaced = 0;
  #listPages = POSTCOPY_PAGES_MAX;
  #reserved = 0;
  #askedMs = 0;
  /** When the memory over there has become more last, as `performance.now()`; other words are no progress. */
  #progressMs = 0;

  constructor(
    config: InstantConfig,
    control: SessionControl,
    statistics: InstantStatistics,
    hooks: InstantHooks,
  ) {
    this.#config = config;
    this.#control = control;
    this.#statistics = statistics;
    this.#hooks = hooks;
    this.#at = { endpoint: config.endpoint, tls: config.tls };
    this.#source = new PageSource(config.pages, control);
    const { blocks } = this.#source;
    this.#units = blocks.map(({ pageSize }, index) => config.hostPages[index] / pageSize);
    this.#plan = new PagePlan(blocks, this.#units, config.order);
    this.#order = config.learn ? new OrderRecorder(blocks, config.order) : undefined;
    this.#limit = config.bandwidth === undefined ? undefined : new BandwidthShare(config.bandwidth);
  }

  /** Connects and says everything that goes before the switch; the destination has taken it then. */
  connect(): void {
    this.#during("connect", () => {
      packagedSections(this.#config.state); // better known now than later
      this.#statistics.start(this.#plan.left);
      this.#link = this.#open();
    });
    this.#during("setup", () => {
      const { out } = this.#link!;
      writeInstantStart(out, this.#config);
      this.#link!.await(() => this.#answered, this.#preemptHint);
      this.#link!.connectUrgent();
      writeInstantSetup(out, this.#config);
      writePing(out, PostcopyPing.PAGES); // whoever refuses any of this does not answer
      out.flush();
      this.#lists = 1;
      this.#link!.await(
        () => this.#listsPlaced === 1,
        "it must have capability postcopy-ram on, and the same machine, devices and memory",
      );
      this.#link!.requireUrgent(this.#preemptHint);
    });
  }

  /** Switches over, and serves until all is in place or the connection is gone. */
  serve(): ServingEnd {
    return this.#serving(() => {
      const { out } = this.#link!;
      writePackage(out, packagedSections(this.#config.state));
      this.#switched = true;
      out.flush();
    });
  }

  /** Takes the migration up again at a destination that waits for that, and serves. */
  recover(endpoint: Endpoint, tls: TlsConfig | undefined): ServingEnd {
    this.#at = { endpoint, tls };
    this.#during("connect", () => {
      if (this.#statistics.progress().elapsedMs === 0) this.#statistics.start(this.#plan.left);
      this.#link = this.#open();
    });
    return this.#serving(() => {
      const { out } = this.#link!;
      const { blocks } = this.#source;
      this.#switched = this.#hasRun = true;
      this.#resuming = false;
      this.#bitmaps = new Set(blocks.keys());
      this.#lists = this.#listsPlaced = 0;
      for (const { idstr } of blocks) writeBitmapRequest(out, idstr);
      out.flush();
      const waits = "it must wait for migrate-recover";
      this.#link!.await(() => this.#bitmaps.size === 0, waits);
      this.#link!.connectUrgent();
      this.#resuming = true;
      writeResume(out);
      out.flush();
      this.#link!.await(() => !this.#resuming, waits);
      this.#runs();
    });
  }

  pages(block: number, offset: number, bytes: number): void {
    const { bytes: blockBytes, pageSize, idstr } = this.#source.blocks[block];
    const host = this.#units[block] * pageSize;
    if (bytes === 0 || offset % host !== 0 || bytes % host !== 0 || offset + bytes > blockBytes) {
      throw replyError(
        `${bytes} bytes at ${offset} of RAM block ${idstr} are asked for, must be whole pages of ${host} in its ${blockBytes}`,
      );
    }
    const first = offset / host;
    const end = first + bytes / host;
    let answered = 0;
    for (let page = first; page < end; page++) {
      if (!this.#plan.claim(block, page)) continue; // on its way already
      this.#order?.add(block, page * this.#units[block], (page + 1) * this.#units[block]);
      answered += this.#put(this.#link!.urgent, block, page, page + 1);
    }
    this.#listPages = POSTCOPY_PAGES_MIN;
    this.#askedMs = performance.now();
    if (answered === 0) return;
    this.#link!.urgent.send();
    if (this.#order === undefined) this.#plan.follow(block, end - 1);
    this.#statistics.answered(answered, performance.now() - this.#link!.arrivedMs);
    this.#count(answered);
  }

  pong(value: number): void {
    if (value === PING_VALUE) this.#answered = true;
    else if (value === PostcopyPing.RUNNING && this.#switched) {
      if (!this.#hasRun) this.#runs();
    } else if (value >= PostcopyPing.PAGES) {
      const placed = value - PostcopyPing.PAGES + 1;
      if (placed > this.#lists) throw replyError(`PONG ${value} came, which no PING asked for`);
      if (placed <= this.#listsPlaced) return;
      this.#listsPlaced = placed;
      this.#progressMs = performance.now();
    }
  }

  receivedBitmap(block: number, reader: ByteReader): void {
    const unit = this.#units[block];
    const { pages, idstr } = this.#source.blocks[block];
    // Whoever says unasked that it has all would end with a guest that has not.
    if (!this.#bitmaps.delete(block)) {
      throw replyError(`a bitmap of RAM block ${idstr} came, which was not asked for`);
    }
    this.#plan.resume(block, readReceivedBitmap(reader, pages), unit);
  }

  resumed(): void {
    if (!this.#resuming) throw replyError("the destination goes on before it was asked to");
    this.#resuming = false;
  }

  shut(value: number): void {
    this.#shut = value;
    if (value !== 0 || this.#control.phase !== "complete")
      throw endedByPeer("Cannot restore", value);
  }

  /** Closes everything. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#control.finish();
    this.#link?.[Symbol.dispose]();
    this.#source[Symbol.dispose]();
    this.#control.closeDescriptors();
  }

  #runs(): void {
    this.#hasRun = true;
    this.#progressMs = performance.now();
    this.#statistics.running();
    this.#hooks.onRunning();
  }

  #open(): InstantLink {
    const [config, control, source] = [this.#config, this.#control, this.#source];
    return new InstantLink({ config, control, source, handler: this, ...this.#at });
  }

  #serving(begin: () => void): ServingEnd {
    try {
      this.#during("transfer", () => {
        begin();
        this.#serveAll();
      });
      this.#control.noteCompleted();
      this.#statistics.end();
      return { order: this.#order?.runs };
    } catch (error) {
      const cut = error instanceof ChannelError || error instanceof TimeoutError;
      if (!cut || !this.#hasRun || this.#control.stopping) throw error;
      this.#link?.[Symbol.dispose]();
      return { cut: toErrorRecord(error, { side: "source" }), order: this.#order?.runs };
    }
  }

  /** Sends everything, what is asked for first, and ends the stream. */
  #serveAll(): void {
    while (this.#plan.left > 0) {
      this.#control.throwIfFailed();
      const waitMs = this.#mayGo();
      this.#link!.hear(waitMs);
      if (waitMs === 0) this.#sendList();
      else if (!this.#hasRun || this.#lists > this.#listsPlaced) {
        this.#requireProgress("put nothing in place");
      }
    }
    this.#plan.requireNone();
    this.#link!.await(() => this.#hasRun, "its devices take that long");
    this.#control.phase = "complete";
    this.#link!.end();
    while (this.#shut === undefined) {
      this.#link!.hear(WAIT_TICK_MS);
      this.#control.throwIfFailed();
      if (this.#shut === undefined) this.#requireProgress("did not confirm");
    }
    this.#link!.connection.endSending();
  }

  get #preemptHint(): string {
    return `it must have postcopy-preempt ${this.#config.preempt ? "on" : "off"}`;
  }

  /** A destination that is not ready, or has stopped, takes pages and says nothing. */
  #requireProgress(lack: string): void {
    const { connectMs, stallMs } = this.#config.timeouts;
    const limitMs = this.#hasRun ? stallMs : connectMs;
    if (performance.now() - this.#progressMs < limitMs) return;
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_STALL",
      `Cannot restore: the destination ${lack} for ${limitMs} ms` +
        (this.#hasRun ? "" : `; ${this.#preemptHint}`),
    );
  }

  /** Milliseconds to wait for a request before the next list of others may go; 0 when it may. */
  #mayGo(): number {
    if (this.#lists - this.#listsPlaced >= POSTCOPY_LISTS_MAX) return WAIT_TICK_MS;
    if (this.#isLearning && !this.#plan.hasOrdered) return WAIT_TICK_MS;
    if (this.#limit === undefined) return 0;
    if (this.#reserved === 0) {
      const { pageSize } = this.#source.blocks[0];
      const most = Math.floor(this.#limit.bytesWithin(PACED_JOB_MS) / pageSize);
      this.#reserved = Math.max(1, Math.min(this.#listPages, most));
      this.#limit.reserve(this.#reserved * pageSize);
    }
    return Math.min(WAIT_TICK_MS, Math.ceil(this.#limit.leftMs));
  }

  /** What follows by itself is not asked for, and would be missing in the order. */
  get #isLearning(): boolean {
    const quietMs = performance.now() - this.#askedMs;
    return this.#order !== undefined && (!this.#hasRun || quietMs < LEARN_QUIET_MS);
  }

  #sendList(): void {
    const { pages, out } = this.#link!;
    let room = this.#reserved > 0 ? this.#reserved : this.#listPages;
    this.#reserved = 0;
    let sent = 0;
    const learning = this.#isLearning;
    while (room > 0 && (learning ? this.#plan.nextOrdered(room) : this.#plan.next(room))) {
      const { block, start, end } = this.#plan;
      // A huge page may not fit at all, and goes alone.
      const fits = Math.max(sent === 0 ? 1 : 0, Math.floor(pages.room(block) / this.#units[block]));
      const stop = Math.min(end, start + fits);
      if (stop < end) this.#plan.giveBack(stop);
      if (stop === start) break;
      sent += this.#put(pages, block, start, stop);
      room -= stop - start;
    }
    pages.send();
    writePing(out, PostcopyPing.PAGES + this.#lists++);
    out.flush();
    this.#count(sent);
    this.#listPages = Math.min(POSTCOPY_PAGES_MAX, this.#listPages * 2);
  }

  /** Puts pages of the destination's memory on a list; how many of the target they are. */
  #put(sender: PageSender, block: number, first: number, end: number): number {
    const unit = this.#units[block];
    const deadline = performance.now() + PAGE_RETRY_MS;
    for (let page = first * unit; page < end * unit;) {
      if (sender.room(block) === 0) sender.send(); // a huge page may be longer than a list
      const stop = Math.min(end * unit, page + sender.room(block));
      try {
        sender.add(block, page, stop);
        page = stop;
      } catch (error) {
        if (!(error instanceof SystemError) || performance.now() > deadline) throw error;
        const { idstr } = this.#source.blocks[block];
        this.#hooks.onNotice(
          `${error.message}: page ${page} of ${idstr} is tried again, the guest waits`,
        );
        pause(WAIT_TICK_MS, this.#control);
      }
    }
    return (end - first) * unit;
  }

  #count(pages: number): void {
    this.#progressMs = performance.now();
    this.#statistics.sent(pages, this.#plan.left, this.#link!.wireBytes);
  }

  #during(phase: "connect" | "setup" | "transfer", step: () => void): void {
    const control = this.#control;
    control.throwIfFailed();
    control.phase = phase;
    try {
      step();
    } catch (error) {
      control.throwIfFailed();
      throw explainInstant(error, {
        left: this.#plan.left,
        ran: !this.#switched ? false : this.#hasRun ? true : undefined,
        peer: formatEndpoint(this.#at.endpoint),
        phase: control.phase,
      });
    }
  }
}
