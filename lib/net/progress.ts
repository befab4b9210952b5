/**
 * Whether a connection gets on: tells a call that is to be repeated from one that has failed, and
 * ends with the session or when the peer has been silent for too long.
 *
 * @module
 */
import { Errno, errnoName } from "../../ffi/libc.ts";
import { ChannelError, TimeoutError } from "../errors.ts";
import { PEER_REASON_MS } from "../limits.ts";
import type { ActiveSession } from "../sync/semaphore.ts";
import type { ConnectionLimits } from "./connection.ts";
import type { Patience } from "./transport.ts";

/** See the module comment. Of one thread's use of one connection. */
export class Progress {
  readonly #session: ActiveSession;
  readonly #limits: ConnectionLimits;
  readonly #withSession: boolean;
  /** When the current lack of progress began; 0 while there is progress. */
  #waitingSince = 0;
  /** The session's activity as it was then. */
  #activity = 0;
  /** When bytes moved for the first time after the stop; 0 before. */
  #movedSince = 0;

  constructor(session: ActiveSession, limits: ConnectionLimits, patience: Patience) {
    this.#session = session;
    this.#limits = limits;
    this.#withSession = patience === "with-session";
  }

  /**
   * True when `result` is a count; false when the call is to be repeated. After a stop, bytes that move
   * may be the last words of either side, which have their time; the rest of something begun is none.
   *
   * @param result A count or `-errno`.
   * @param idle Whether the peer owes nothing here.
   */
  made(action: "send" | "receive", result: number, idle = false): boolean {
    if (result > 0) {
      this.#waitingSince = 0;
      this.#session.noteActivity();
      if (this.#session.stopping) this.#requireLastWords(action, idle);
      return true;
    }
    if (this.#session.stopping) throw stopped(action);
    if (result !== -Errno.EAGAIN && result !== -Errno.EINTR) {
      const errno = errnoName(-result);
      throw new ChannelError("ERR_MULTIFD_CHANNEL", `Cannot ${action}: ${errno}`, { errno });
    }
    const now = performance.now();
    const limitMs = idle ? this.#limits.idleMs : this.#limits.stallMs;
    const elsewhere = (idle || this.#withSession) && this.#activity !== this.#session.activity;
    if (this.#waitingSince === 0 || elsewhere) {
      this.#waitingSince = now;
      this.#activity = this.#session.activity;
    }
    if (now - this.#waitingSince >= limitMs) {
      throw new TimeoutError(
        "ERR_MULTIFD_TIMEOUT_STALL",
        `Cannot ${action}: the peer moved no byte for ${limitMs} ms`,
      );
    }
    return false;
  }

  /** An error about a connection that ends where more must come. */
  ended(): ChannelError {
    if (this.#session.stopping) return stopped("receive");
    return new ChannelError(
      "ERR_MULTIFD_CHANNEL_ENDED",
      "Cannot receive: the peer ended the connection in the middle of the data",
    );
  }

  /** Ends what a peer keeps going with a byte now and then; whoever speaks next has its time anew. */
  #requireLastWords(action: "send" | "receive", idle: boolean): void {
    const now = performance.now();
    if (action === "send" || idle) {
      if (this.#movedSince === 0) this.#movedSince = now;
      if (now - this.#movedSince < PEER_REASON_MS) return;
    }
    this.#movedSince = 0;
    throw stopped(action);
  }
}

function stopped(action: "send" | "receive"): ChannelError {
  return new ChannelError(
    "ERR_MULTIFD_CHANNEL_STOPPED",
    `Cannot ${action}: the session was stopped`,
  );
}
