/**
 * A connection that has just been opened. Whoever has it says once how it is used: by one thread, or
 * by two with one direction each.
 *
 * @module
 */
import type { ActiveSession } from "../sync/semaphore.ts";
import type { Connection, ConnectionLimits } from "./connection.ts";
import type { Link, LinkHalves, Patience, Transport } from "./transport.ts";

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

  /** For two threads. */
  split(): LinkHalves {
    return this.#transport.split(this.#take());
  }

  #take(): Link {
    const link = this.#link;
    if (link === undefined) throw new Error("Cannot use connection: it is in use already");
    this.#link = undefined;
    return link;
  }
}
