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
import { Connection } from "./connection.ts";
import { configureSocket } from "./socket.ts";

/** See the module comment. Bytes that do not fit the pair end in an error, not in a hang. */
export class SocketPair implements Disposable {
  readonly near: Connection;
  readonly far: Connection;

  /** @throws {SystemError} when there are no descriptors left. */
  constructor(session: ActiveSession) {
    const fds = new Arena(8);
    const type = SocketType.STREAM | SocketType.CLOEXEC;
    unwrap("Cannot make a socket pair", socketpair(AddressFamily.UNIX, type, 0, fds.address));
    const [near, far] = fds.u32;
    this.near = new Connection(near, session, TIMEOUTS_DEFAULT);
    this.far = new Connection(far, session, TIMEOUTS_DEFAULT);
    try {
      configureSocket(near, false);
      configureSocket(far, false);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    close(this.near.fd);
    close(this.far.fd);
  }
}
