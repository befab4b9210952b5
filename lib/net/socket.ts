/**
 * Blocking sockets without blocking for ever: connecting, listening and accepting in short steps
 * that look at the stop word, and the options every migration socket gets.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import {
  accept,
  bind,
  close,
  connect,
  Errno,
  errnoName,
  fcntl,
  getsockname,
  getsockopt,
  listen,
  poll,
  recv,
  setsockopt,
  socket,
  unwrap,
} from "../../ffi/libc.ts";
import { FileControl, MessageFlag, PollEvent, SocketOption, SocketType } from "../../ffi/linux.ts";
import { ChannelError, SystemError, TimeoutError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import type { Accepted } from "./endpoint_kind.ts";
import { SOCKET_ADDRESS_BYTES, type SocketAddress } from "./socket_address.ts";

/** Scratch structs of one thread's socket calls. */
class SocketScratch {
  readonly arena = new Arena(512);
  readonly address = this.arena.reserve(SOCKET_ADDRESS_BYTES);
  readonly integer = this.arena.reserve(16); // socklen_t, int options, timeval
  readonly pollfd = this.arena.reserve(8);

  at(offset: number): number {
    return this.arena.address + offset;
  }
}

let scratch: SocketScratch | undefined;
const structs = (): SocketScratch => (scratch ??= new SocketScratch());

/**
 * Connects within `limitMs`. A peer that is not listening yet is an error: retrying is the caller's
 * decision.
 *
 * @param onSocket Called with the descriptor before any wait, so that a stop can shut it down.
 * @returns The connected descriptor, not yet configured.
 * @throws {SystemError} when the kernel refuses, {TimeoutError} after the limit.
 */
export function connectSocket(
  address: SocketAddress,
  limitMs: number,
  session: Stoppable,
  onSocket: (fd: number) => void,
): number {
  const peer = address.name;
  const action = `Cannot connect to ${peer}`;
  const fd = makeSocket(action, address);
  onSocket(fd);
  const { arena, address: at } = structs();
  arena.u8.set(address.bytes, at);
  const deadline = performance.now() + limitMs;
  for (;;) {
    const status = connect(fd, arena.address + at, address.bytes.byteLength);
    if (status >= 0) break;
    if (status === -Errno.EINTR) continue;
    if (status === -Errno.EAGAIN) {
      // A Unix listener whose backlog is full: there is nothing to poll for.
      pause(session, deadline, action, peer);
      continue;
    }
    if (status !== -Errno.EINPROGRESS) unwrap(action, status, { peer });
    waitReady(fd, PollEvent.OUT, session, deadline, action, peer);
    const error = socketError(fd);
    if (error !== 0) unwrap(action, -error, { peer });
    break;
  }
  return fd;
}

/** How to listen. */
interface ListenSettings {
  /** Whether the address may be that of connections which have just ended. */
  readonly reuseAddress?: boolean;
  /** Called when the address is in use: true when it has been made free. */
  readonly makeFree?: () => boolean;
}

/**
 * A bound, listening, non-blocking socket.
 *
 * @returns Its descriptor, and the address that it has.
 * @throws {SystemError} when the address is in use or not ours.
 */
export function listenSocket(
  address: SocketAddress,
  backlog: number,
  { reuseAddress = false, makeFree = () => false }: ListenSettings = {},
): { readonly fd: number; readonly bound: Uint8Array } {
  const action = `Cannot listen on ${address.name}`;
  const fd = makeSocket(action, address);
  try {
    if (reuseAddress) setInteger(fd, SocketOption.SOL_SOCKET, SocketOption.SO_REUSEADDR, 1);
    const bindOnce = (): number => {
      const { arena, address: at } = structs();
      arena.u8.set(address.bytes, at);
      return bind(fd, arena.address + at, address.bytes.byteLength);
    };
    let status = bindOnce();
    if (status === -Errno.EADDRINUSE && makeFree()) status = bindOnce();
    unwrap(action, status);
    unwrap(action, listen(fd, backlog));
    const { arena, address: at, integer } = structs();
    arena.view.setUint32(integer, SOCKET_ADDRESS_BYTES, true);
    unwrap(action, getsockname(fd, arena.address + at, arena.address + integer));
    return { fd, bound: arena.u8.slice(at, at + SOCKET_ADDRESS_BYTES) };
  } catch (error) {
    close(fd);
    throw error;
  }
}

function makeSocket(action: string, { family }: SocketAddress): number {
  const type = SocketType.STREAM | SocketType.NONBLOCK | SocketType.CLOEXEC;
  return unwrap(action, socket(family, type, 0));
}

/** Failures to accept after which the connection still waits, and would be tried without an end. */
const OUT_OF_RESOURCES: ReadonlySet<number> = new Set([
  Errno.ENFILE,
  Errno.EMFILE,
  Errno.ENOMEM,
  Errno.ENOBUFS,
]);

/**
 * Accepts one waiting connection, or none.
 *
 * @param nameOf The text of the other end's address.
 * @throws {SystemError} when the process or the machine has no room for one more.
 */
export function acceptSocket(
  listener: number,
  nameOf: (address: Uint8Array) => string,
): Accepted | undefined {
  const { arena, address, integer } = structs();
  arena.view.setUint32(integer, SOCKET_ADDRESS_BYTES, true);
  const at = arena.address + address;
  const flags = SocketType.NONBLOCK | SocketType.CLOEXEC;
  const fd = accept(listener, at, arena.address + integer, flags);
  if (OUT_OF_RESOURCES.has(-fd)) unwrap("Cannot accept connection", fd);
  // A connection that was reset while it waited is no failure of the listener.
  if (fd < 0) return undefined;
  return { fd, peer: nameOf(arena.u8.slice(address, address + SOCKET_ADDRESS_BYTES)) };
}

/**
 * Makes a connected socket what a connection expects: blocking, but for at most one tick, so that
 * every thread inside a call comes back to look at the stop word.
 */
export function configureSocket(fd: number): void {
  setBlocking(fd, true);
  const { arena, integer } = structs();
  arena.setPointer(integer, 0);
  arena.setPointer(integer + 8, WAIT_TICK_MS * 1000);
  for (const option of [SocketOption.SO_RCVTIMEO, SocketOption.SO_SNDTIMEO]) {
    unwrap(
      "Cannot set socket timeout",
      setsockopt(fd, SocketOption.SOL_SOCKET, option, arena.address + integer, 16),
    );
  }
}

/** Has calls on `fd` wait or not, those of libraries included. */
export function setBlocking(fd: number, blocking: boolean): void {
  const flags = unwrap("Cannot read socket flags", fcntl(fd, FileControl.GETFL, 0));
  const others = flags & ~SocketType.NONBLOCK;
  const wanted = blocking ? others : others | SocketType.NONBLOCK;
  unwrap("Cannot set socket flags", fcntl(fd, FileControl.SETFL, wanted));
}

/** Has small packets of TCP sent without delay. */
export function setNoDelay(fd: number): void {
  setInteger(fd, SocketOption.IPPROTO_TCP, SocketOption.TCP_NODELAY, 1);
}

/**
 * Waits until `fd` is ready for `events`.
 *
 * @throws {TimeoutError} after `deadline` (as `performance.now()`), {ChannelError} on stop.
 */
function waitReady(
  fd: number,
  events: number,
  session: Stoppable,
  deadline: number,
  action: string,
  peer?: string,
): void {
  while (!pollOnce(fd, events, session, deadline, action, peer));
}

/** Waits one tick for `events`; true when `fd` is ready. Throws as {@linkcode waitReady} does. */
function pollOnce(
  fd: number,
  events: number,
  session: Stoppable,
  deadline: number,
  action: string,
  peer?: string,
): boolean {
  const { arena, pollfd } = structs();
  arena.view.setInt32(pollfd, fd, true);
  arena.view.setInt16(pollfd + 4, events, true);
  arena.view.setInt16(pollfd + 6, 0, true);
  const left = deadline - performance.now();
  const ready = poll(
    arena.address + pollfd,
    1,
    Math.max(0, Math.min(WAIT_TICK_MS, Math.ceil(left))),
  );
  if (session.stopping) {
    throw new ChannelError("ERR_MULTIFD_CHANNEL_STOPPED", `${action}: the session was stopped`);
  }
  if (ready > 0) return true;
  if (ready < 0 && ready !== -Errno.EINTR) unwrap(action, ready, { peer });
  if (performance.now() >= deadline) {
    throw new TimeoutError("ERR_MULTIFD_TIMEOUT", `${action}: no answer within the limit`, {
      peer,
    });
  }
  return false;
}

/** What a read of `fd` would find, without waiting and without taking a byte. */
export function peek(fd: number): "byte" | "end" | "nothing" {
  const { arena, pollfd } = structs();
  const got = recv(fd, arena.address + pollfd, 1, MessageFlag.PEEK | MessageFlag.DONTWAIT);
  if (got > 0) return "byte";
  return got === -Errno.EAGAIN || got === -Errno.EINTR ? "nothing" : "end";
}

/** Whether `fd` has a byte to read, or has ended, within `waitMs`. */
export function isReadable(fd: number, waitMs: number): boolean {
  const { arena, pollfd } = structs();
  arena.view.setInt32(pollfd, fd, true);
  arena.view.setInt16(pollfd + 4, PollEvent.IN, true);
  arena.view.setInt16(pollfd + 6, 0, true);
  return poll(arena.address + pollfd, 1, Math.ceil(waitMs)) > 0;
}

/** Signs that a connection is over: the other side has ended it, or it was reset. */
export const EndSign = {
  ENDED: PollEvent.RDHUP | PollEvent.HUP | PollEvent.ERR,
  RESET: PollEvent.ERR,
} as const;

/** Whether the other side ends the connection within `waitMs`, whatever is still to be read from it. */
export function isEndedByPeer(fd: number, waitMs: number, signs: number = EndSign.ENDED): boolean {
  const { arena, pollfd } = structs();
  arena.view.setInt32(pollfd, fd, true);
  arena.view.setInt16(pollfd + 4, PollEvent.RDHUP, true);
  arena.view.setInt16(pollfd + 6, 0, true);
  if (poll(arena.address + pollfd, 1, Math.ceil(waitMs)) <= 0) return false;
  return (arena.view.getInt16(pollfd + 6, true) & signs) !== 0;
}

function pause(session: Stoppable, deadline: number, action: string, peer: string): void {
  if (session.stopping) {
    throw new ChannelError("ERR_MULTIFD_CHANNEL_STOPPED", `${action}: the session was stopped`);
  }
  if (performance.now() >= deadline) {
    throw new TimeoutError("ERR_MULTIFD_TIMEOUT", `${action}: no answer within the limit`, {
      peer,
    });
  }
  poll(0, 0, 5); // sleeps; an empty set has nothing to report
}

function socketError(fd: number): number {
  const { arena, integer } = structs();
  arena.view.setUint32(integer + 8, 4, true);
  const status = getsockopt(
    fd,
    SocketOption.SOL_SOCKET,
    SocketOption.SO_ERROR,
    arena.address + integer,
    arena.address + integer + 8,
  );
  if (status < 0) return -status;
  return arena.view.getInt32(integer, true);
}

function setInteger(fd: number, level: number, option: number, value: number): void {
  const { arena, integer } = structs();
  arena.view.setInt32(integer, value, true);
  const status = setsockopt(fd, level, option, arena.address + integer, 4);
  if (status < 0) {
    throw new SystemError(`Cannot set socket option ${level}/${option}: ${errnoName(-status)}`, {
      errno: errnoName(-status),
    });
  }
}
