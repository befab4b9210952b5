/**
 * How bytes travel over connected descriptors: as they are, or in some other form. The seam between
 * whoever opens connections and whoever uses them.
 *
 * A connection is opened by one thread and used by one, often another: a {@linkcode Link} goes there
 * as plain data and is attached. Two threads may use one connection, each for one direction, only by
 * splitting it, and then neither has the methods of the other's direction.
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

/** An open connection on its way to the thread that uses it. */
export interface Link {
  /** Its descriptor, which belongs to the session. */
  readonly fd: number;
}

/** The direction of an open connection that a thread sends in. */
export interface SendingHalf {
  readonly direction: "sending";
  readonly link: Link;
}

/** The direction of an open connection that a thread receives from. */
export interface ReceivingHalf {
  readonly direction: "receiving";
  readonly link: Link;
}

/** An open connection of which another thread has one direction. */
interface SharedLink {
  readonly direction: "both";
  readonly link: Link;
}

/** A connection that two threads use. */
export interface LinkHalves {
  readonly sending: SendingHalf;
  readonly receiving: ReceivingHalf;
  /** For a thread that also takes the other one's direction when that is done with it. */
  readonly both: SharedLink;
}

/** A connection whose peer has not said yet what it is. Used by one thread, which does not wait here. */
export interface Opening {
  /** Whether what the peer says can be read. @throws {MultifdError} when that will never be. */
  advance(): boolean;
  /** Copies what comes next to `address`, leaving it there. @returns bytes, 0 at the end, or `-errno`. */
  peek(address: number, bytesMax: number): number;
  /** Takes what comes next. @returns bytes, 0 at the end, or `-errno`. */
  read(address: number, bytesMax: number): number;
}

/** See the module comment. */
export interface Transport {
  /** Begins on an accepted descriptor that does not block. */
  open(fd: number): Opening;
  /** Uses a connection in both directions. */
  attach(
    link: Link,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience?: Patience,
  ): Connection;
  /** Makes a connection one for two threads; to be called before it is attached, and instead. */
  split(link: Link): LinkHalves;
  /** Uses the sending half of a connection. */
  attachSending(
    half: SendingHalf,
    session: ActiveSession,
    limits: ConnectionLimits,
  ): SendingConnection;
  /** Uses the receiving half of a connection. */
  attachReceiving(
    half: ReceivingHalf,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience?: Patience,
  ): ReceivingConnection;
  /** Uses both directions of a connection, of which another thread has one meanwhile. */
  attachShared(
    shared: SharedLink,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience?: Patience,
  ): Connection;
  /**
   * Lets the thread that reads a connection come to its end as soon as it has read what has come. The
   * peer hears nothing of it. Any thread may call this.
   */
  endReceiving(link: Link): void;
  /** Whether bytes have come that the thread which reads the connection has not taken. Any thread. */
  hasArrived(link: Link): boolean;
}

/**
 * How long a peer may be silent in the middle of something: for the limit of the connection, or as
 * long as it moves bytes on the session's other connections.
 */
export type Patience = "alone" | "with-session";
