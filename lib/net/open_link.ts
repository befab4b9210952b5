/**
 * A connection that has just been opened. Whoever has it says once how it is used: by one thread, by
 * two with one direction each, or by one that lends another one the direction in which it sends.
 *
 * @module
 */
import type { ActiveSession } from "../sync/semaphore.ts";
import type {
  Connection,
  ConnectionLimits,
  ReceivingConnection,
  SendingConnection,
} from "./connection.ts";
import type { Link, Patience, ReceivingHalf, SendingHalf, Transport } from "./transport.ts";

/** See the module comment. */
export class OpenLink {
  readonly #transport: Transport;
  #link: Link | undefined;

  constructor(transport: Transport, link: Link) {
    this.#transport = transport;
    this.#link = link;
  }

  /** For the calling thread, both directions. */
  attach(session: ActiveSession, limits: ConnectionLimits, patience?: Patience): Connection {
    return this.#transport.attach(this.#take(), session, limits, patience);
  }

  /** For the calling thread, which sends, and another one that receives. */
  split(session: ActiveSession, limits: ConnectionLimits): SplitConnection {
    const { sending, receiving } = this.#transport.split(this.#take());
    return { sending: this.#transport.attachSending(sending, session, limits), receiving };
  }

  /** For the calling thread, which receives, and another one that sends for a while. */
  share(session: ActiveSession, limits: ConnectionLimits, patience?: Patience): SharedConnection {
    const { sending, both } = this.#transport.split(this.#take());
    const whole = this.#transport.attachShared(both, session, limits, patience);
    return new SharedConnection(whole, sending);
  }

  #take(): Link {
    const link = this.#link;
    if (link === undefined) throw new Error("Cannot use connection: it is in use already");
    this.#link = undefined;
    return link;
  }
}

/** See {@linkcode OpenLink.split}. */
interface SplitConnection {
  readonly sending: SendingConnection;
  /** For the other thread. */
  readonly receiving: ReceivingHalf;
}

/** See {@linkcode OpenLink.share}. Belongs to the thread that receives. */
export class SharedConnection {
  /** What the thread may do at any time. */
  readonly receiving: ReceivingConnection;
  readonly #whole: Connection;
  readonly #sending: SendingHalf;
  #lent = false;

  constructor(whole: Connection, sending: SendingHalf) {
    this.receiving = whole;
    this.#whole = whole;
    this.#sending = sending;
  }

  /** Lends the sending half; until it is back, {@linkcode whole} is refused. */
  lend(): SendingHalf {
    this.whole(); // it can be lent once
    this.#lent = true;
    return this.#sending;
  }

  /** The thread that had it has ended. */
  takeBack(): void {
    this.#lent = false;
  }

  /** Both directions. */
  whole(): Connection {
    if (!this.#lent) return this.#whole;
    throw new Error("Cannot use connection: another thread sends on it");
  }
}
