/**
 * The connections of a source whose memory follows its guest, from one cut to the next: the main one, and
 * the one for what is asked for if that has one of its own.
 *
 * @module
 */
import { ChannelError, MultifdError, TimeoutError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { Connection } from "../net/connection.ts";
import { connectTo, formatEndpoint, type Endpoint } from "../net/endpoint.ts";
import type { TlsConfig } from "../net/tls_options.ts";
import { sessionTransport } from "../net/transport_of_session.ts";
import type { PageSource } from "../snapshot/page_source.ts";
import {
  CHANNEL_DESCRIPTOR,
  MAIN_DESCRIPTOR,
  type SessionControl,
} from "../sync/session_control.ts";
import { ByteReader } from "../wire/byte_reader.ts";
import { ByteWriter } from "../wire/byte_writer.ts";
import { MainStreamWriter } from "../wire/main_stream_writer.ts";
import { wantsPreemptFirst } from "../wire/machine_type.ts";
import { PostcopyReplies, type PostcopyReplyHandler } from "../wire/postcopy_replies.ts";
import type { InstantConfig } from "./instant_messages.ts";
import { PageSender } from "./page_sender.ts";

/** How long a destination may take to close a connection that it does not expect: the guest waits as long. */
const URGENT_VERDICT_MS = 20;

/** What a link is made of. */
interface LinkParts {
  readonly config: InstantConfig;
  readonly endpoint: Endpoint;
  readonly tls: TlsConfig | undefined;
  readonly control: SessionControl;
  readonly source: PageSource;
  readonly handler: PostcopyReplyHandler;
}

/** See the module comment. Used by one thread. */
export class InstantLink implements Disposable {
  readonly connection: Connection;
  readonly out: ByteWriter;
  readonly pages: PageSender;
  readonly #parts: LinkParts;
  readonly #transports = new DisposableStack();
  readonly #replies: PostcopyReplies;
  #urgentConnection: Connection | undefined;
  #urgent: PageSender | undefined;

  /** Connects the main connection. */
  constructor(parts: LinkParts) {
    const { config, source, handler } = parts;
    this.#parts = parts;
    this.connection = this.#connect(MAIN_DESCRIPTOR);
    this.out = new ByteWriter(this.connection);
    this.pages = new PageSender(this.connection, source, config.state.ramSectionId);
    const names = source.blocks.map(({ idstr }) => idstr);
    this.#replies = new PostcopyReplies(new ByteReader(this.connection), names, handler);
    if (wantsPreemptFirst(config.state.machine)) this.connectUrgent();
  }

  /**
   * Connects for what is asked for, if it has a connection of its own and that is not there yet. It says
   * nothing of itself, so it must not come before the destination has taken the main one.
   */
  connectUrgent(): void {
    if (!this.#parts.config.preempt || this.#urgent !== undefined) return;
    this.#urgentConnection = this.#connect(CHANNEL_DESCRIPTOR);
    this.#urgent = new PageSender(this.#urgentConnection, this.#parts.source, undefined);
  }

  /** Where pages go that were asked for. */
  get urgent(): PageSender {
    return this.#urgent ?? this.pages;
  }

  /**
   * Requires that the destination has taken the connection for them: it takes none more than it expects.
   *
   * @param hint What must be so over there, for the message.
   */
  requireUrgent(hint: string): void {
    if (!(this.#urgentConnection?.isEndedByPeer(URGENT_VERDICT_MS) ?? false)) return;
    throw new ChannelError(
      "ERR_MULTIFD_CHANNEL_ENDED",
      `Cannot set up: the destination took no connection for requested pages; ${hint}`,
    );
  }

  /** Bytes of pages sent so far. */
  get wireBytes(): number {
    return this.pages.bytes + (this.#urgent?.bytes ?? 0);
  }

  /** When what was heard last has come, as `performance.now()`. */
  get arrivedMs(): number {
    return this.#replies.arrivedMs;
  }

  /** Hears what the destination says: waits for it, and takes what is there then, for a tick at most. */
  hear(waitMs: number): void {
    const until = performance.now() + waitMs + WAIT_TICK_MS;
    let wait = waitMs;
    while (this.#replies.read(wait) && performance.now() < until) wait = 0;
  }

  /**
   * Hears the destination until `isDone`.
   *
   * @param hint What must be so over there, for messages.
   */
  await(isDone: () => boolean, hint: string): void {
    const { control, config } = this.#parts;
    const limitMs = config.timeouts.connectMs;
    const deadline = performance.now() + limitMs;
    try {
      while (!isDone()) {
        this.hear(WAIT_TICK_MS);
        control.throwIfFailed();
        if (performance.now() < deadline) continue;
        throw new TimeoutError(
          "ERR_MULTIFD_TIMEOUT_ANSWER",
          `Cannot set up: the destination did not answer within ${limitMs} ms`,
        );
      }
    } catch (error) {
      if (!(error instanceof MultifdError) || control.stopping) throw error;
      throw new ChannelError(error.code, `${error.message}; ${hint}`, { cause: error });
    }
  }

  /** Says that nothing follows, on the connection for what is asked for and in the main stream. */
  end(): void {
    this.#urgent?.end();
    const writer = new MainStreamWriter(this.out, this.#parts.config.state.ramSectionId);
    writer.beginRamSection("end");
    writer.endRamSection();
    writer.endMark();
    this.out.flush();
  }

  /** Closes the connections. */
  [Symbol.dispose](): void {
    this.#transports.dispose();
    this.#parts.control.closeDescriptor(MAIN_DESCRIPTOR);
    this.#parts.control.closeDescriptor(CHANNEL_DESCRIPTOR);
  }

  #connect(place: number): Connection {
    const { config, control, endpoint, tls } = this.#parts;
    const { timeouts } = config;
    const transport = this.#transports.use(sessionTransport({ endpoint, tls }));
    transport.prepare("client");
    const fd = connectTo(endpoint, timeouts.connectMs, control, (socket) =>
      control.registerDescriptor(place, socket),
    );
    const link = transport.connect(fd, formatEndpoint(endpoint), timeouts.connectMs, control);
    return transport.attach(link, control, timeouts, "with-session");
  }
}
