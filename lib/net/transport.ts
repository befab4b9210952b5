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
import type { TlsSuite } from "./tls_suites.ts";
import type { ActiveSession, Stoppable } from "../sync/semaphore.ts";
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
  /** What the transport keeps for it, which belongs to the transport that opened it; absent for none. */
  readonly state?: number;
  /** What was read of it and still has to be received. */
  readonly head?: Uint8Array;
}

/** The direction of an open connection that a thread sends in. */
export interface SendingHalf {
  readonly direction: "sending";
  readonly link: Link;
  /** What both halves must hold in turn; absent where they have nothing in common. */
  readonly lock?: SharedArrayBuffer;
}

/** The direction of an open connection that a thread receives from. */
export interface ReceivingHalf {
  readonly direction: "receiving";
  readonly link: Link;
  /** As in {@linkcode SendingHalf}. */
  readonly lock?: SharedArrayBuffer;
}

/** An open connection of which another thread has one direction. */
export interface SharedLink {
  readonly direction: "both";
  readonly link: Link;
  /** As in {@linkcode SendingHalf}. */
  readonly lock?: SharedArrayBuffer;
}

/** A connection that two threads use. */
export interface LinkHalves {
  readonly sending: SendingHalf;
  readonly receiving: ReceivingHalf;
  /** For a thread that also takes the other one's direction when that is done with it. */
  readonly both: SharedLink;
}

/** A connection whose peer has not said yet what it is. Used by one thread, which does not wait here. */
export interface Opening extends Disposable {
  /** Whether what the peer says can be read. @throws {MultifdError} when that will never be. */
  advance(): boolean;
  /** Copies what comes next to `address`, leaving it there. @returns bytes, 0 at the end, or `-errno`. */
  peek(address: number, bytesMax: number): number;
  /** Takes what comes next. @returns bytes, 0 at the end, or `-errno`. */
  read(address: number, bytesMax: number): number;
  /** What it means that the peer has ended before it said anything, if that means something. */
  readonly earlyEnd?: string;
  /** The connection as it is then, for the thread that uses it; this object is done with. */
  readonly link: Link;
  /** Lets go of a connection that nobody will use, not of its descriptor. */
  [Symbol.dispose](): void;
}

/**
 * See the module comment. To be disposed by the thread that made it, after all threads that use
 * connections which it has opened.
 */
export interface Transport extends Disposable {
  /**
   * Reads what it needs to open connections on that side, which otherwise happens with the first.
   *
   * @returns What its user should know all the same.
   * @throws {MultifdError} when something is missing.
   */
  prepare(side: "client" | "server"): readonly string[];
  /** Begins on an accepted descriptor that does not block. */
  open(fd: number, peer: string): Opening;
  /**
   * Opens a connection on a descriptor that has been connected and configured.
   *
   * @param verdictMs How long a peer may take to refuse after all; it says nothing if it does not.
   * @throws {MultifdError} when that is not possible, {TimeoutError} after the limit.
   */
  connect(fd: number, peer: string, limitMs: number, session: Stoppable, verdictMs?: number): Link;
  /** Uses a connection in both directions. */
  attach(
    link: Link,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience?: Patience,
  ): Connection;
  /** How a connection is encrypted; before it is attached or split. Undefined: not at all. */
  encryption(link: Link): TlsSuite | undefined;
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
