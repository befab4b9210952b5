/**
 * Two connected sockets of one thread.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, socketpair, unwrap } from "../../ffi/libc.ts";
import { AddressFamily, SocketType } from "../../ffi/linux.ts";
import { TIMEOUTS_DEFAULT } from "../limits.ts";
import type { ActiveSession } from "../sync/semaphore.ts";
import type { Connection } from "./connection.ts";
import { plainTransport } from "./plain_transport.ts";
import { configureSocket } from "./socket.ts";

/** See the module comment. Bytes that do not fit the pair end in an error, not in a hang. */
export class SocketPair implements Disposable {
  readonly near: Connection;
  readonly far: Connection;
  readonly #fds: readonly [number, number];

  /** @throws {SystemError} when there are no descriptors left. */
  constructor(session: ActiveSession) {
    const fds = new Arena(8);
    const type = SocketType.STREAM | SocketType.CLOEXEC;
    unwrap("Cannot make a socket pair", socketpair(AddressFamily.UNIX, type, 0, fds.address));
    const [near, far] = fds.u32;
    this.#fds = [near, far];
    this.near = plainTransport.attach({ fd: near }, session, TIMEOUTS_DEFAULT);
    this.far = plainTransport.attach({ fd: far }, session, TIMEOUTS_DEFAULT);
    try {
      configureSocket(near);
      configureSocket(far);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) close(fd);
  }
}
