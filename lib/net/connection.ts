/**
 * One open connection as a channel or the main thread uses it: complete gather writes and scatter
 * reads, whatever the transport makes of them. All traffic of a session goes through here; what it is
 * carried by is behind `transport.ts`.
 *
 * Every call ends with the session, and gives up on a peer that stalls.
 *
 * @module
 */
import type { IovecList } from "../memory/iovec_list.ts";

/** Limits of one connection in milliseconds. */
export interface ConnectionLimits {
  /** Without a byte where the peer owes nothing yet, and none on the session's other connections. */
  readonly idleMs: number;
  /** Without a byte in the middle of something. */
  readonly stallMs: number;
}

/** What a thread does with a connection that it sends on. */
export interface SendingConnection {
  /** Writes all bytes of `list` and leaves it empty. */
  sendList(list: IovecList): void;
  /** Writes `bytes` bytes at `address`. */
  send(address: number, bytes: number): void;
  /** Tells the peer that nothing follows; it may still speak. */
  endSending(): void;
  /** Whether the peer ends the connection within `waitMs`, whatever is still to be read from it. */
  isEndedByPeer(waitMs: number): boolean;
}

/** What a thread does with a connection that it receives from. */
export interface ReceivingConnection {
  /**
   * Fills all of `list` and leaves it empty.
   *
   * @throws {ChannelError} when the peer ends the connection first.
   */
  receiveList(list: IovecList): void;
  /** Reads exactly `bytes` bytes to `address`. */
  receive(address: number, bytes: number): void;
  /**
   * Reads at least `bytesMin` and at most `bytesMax` bytes.
   *
   * @param atBoundary Whether the peer owes nothing: then the end of the connection is returned as 0
   * and the idle limit applies until the first byte.
   */
  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number;
  /** Whether a byte or the end of the connection is here within `waitMs`. */
  isReadable(waitMs: number): boolean;
  /** Whether the peer has ended the connection and nothing is left to be read; takes no byte. */
  hasEnded(): boolean;
  /** Whether the peer has sent something that is not read yet. */
  hasUnreadBytes(): boolean;
  /** Whether bytes were taken from the network that nobody has read: no other thread can see those. */
  readonly holdsBytes: boolean;
}

/** Both directions, for one thread. Does not own the descriptor. */
export interface Connection extends SendingConnection, ReceivingConnection {}
