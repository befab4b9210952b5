/**
 * Bytes as they are on a connected stream socket: one system call takes or fills a whole list of
 * pages. Its two directions have nothing to do with each other, so two threads may have one each.
 *
 * @module
 */
import { recv, recvmsg, send, sendmsg, shutdown } from "../../ffi/libc.ts";
import { MessageFlag, Shutdown } from "../../ffi/linux.ts";
import type { IovecList } from "../memory/iovec_list.ts";
import type { ActiveSession } from "../sync/semaphore.ts";
import type { Connection, ConnectionLimits } from "./connection.ts";
import { Progress } from "./progress.ts";
import { isEndedByPeer, isReadable, peek } from "./socket.ts";
import type { Link, Opening, Patience, Transport } from "./transport.ts";

/** See the module comment. Tolerates partial transfers and interruptions. */
class PlainConnection implements Connection {
  readonly holdsBytes = false;
  readonly #fd: number;
  readonly #progress: Progress;

  constructor(
    fd: number,
    session: ActiveSession,
    limits: ConnectionLimits,
    patience: Patience = "alone",
  ) {
    this.#fd = fd;
    this.#progress = new Progress(session, limits, patience);
  }

  sendList(list: IovecList): void {
    while (list.bytes > 0) {
      const sent = sendmsg(this.#fd, list.message(), MessageFlag.NOSIGNAL);
      if (this.#progress.made("send", sent)) list.consume(sent);
    }
  }

  send(address: number, bytes: number): void {
    for (let done = 0; done < bytes;) {
      const sent = send(this.#fd, address + done, bytes - done, MessageFlag.NOSIGNAL);
      if (this.#progress.made("send", sent)) done += sent;
    }
  }

  endSending(): void {
    shutdown(this.#fd, Shutdown.WRITE);
  }

  isEndedByPeer(waitMs: number): boolean {
    return isEndedByPeer(this.#fd, waitMs);
  }

  receiveList(list: IovecList): void {
    while (list.bytes > 0) {
      // Has the kernel come back once for the whole list, or with a part of it when its tick is over.
      const got = recvmsg(this.#fd, list.message(), MessageFlag.WAITALL);
      if (got === 0) throw this.#progress.ended();
      if (this.#progress.made("receive", got)) list.consume(got);
    }
  }

  receive(address: number, bytes: number): void {
    const got = this.receiveSome(address, bytes, bytes, false);
    if (got === 0) throw this.#progress.ended();
  }

  receiveSome(address: number, bytesMin: number, bytesMax: number, atBoundary: boolean): number {
    let done = 0;
    while (done < bytesMin) {
      const idle = atBoundary && done === 0;
      const got = recv(this.#fd, address + done, bytesMax - done, 0);
      if (got === 0) {
        if (idle) return 0;
        throw this.#progress.ended();
      }
      if (this.#progress.made("receive", got, idle)) done += got;
    }
    return done;
  }

  isReadable(waitMs: number): boolean {
    return isReadable(this.#fd, waitMs);
  }

  hasEnded(): boolean {
    return peek(this.#fd) === "end";
  }

  hasUnreadBytes(): boolean {
    return peek(this.#fd) === "byte";
  }
}

/** Needs nothing before the peer can speak. */
class PlainOpening implements Opening {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  advance(): boolean {
    return true;
  }

  peek(address: number, bytesMax: number): number {
    return recv(this.#fd, address, bytesMax, MessageFlag.PEEK | MessageFlag.DONTWAIT);
  }

  read(address: number, bytesMax: number): number {
    return recv(this.#fd, address, bytesMax, MessageFlag.DONTWAIT);
  }

  get link(): Link {
    return { fd: this.#fd };
  }

  [Symbol.dispose](): void {}
}

/** See the module comment. */
export const plainTransport: Transport = {
  prepare: () => [],
  [Symbol.dispose]: () => {},
  connect: (fd) => ({ fd }),
  open: (fd) => new PlainOpening(fd),
  encryption: () => undefined,
  attach: ({ fd }, session, limits, patience) => new PlainConnection(fd, session, limits, patience),
  split: (link) => ({
    sending: { direction: "sending", link },
    receiving: { direction: "receiving", link },
    both: { direction: "both", link },
  }),
  attachSending: ({ link }, session, limits) => new PlainConnection(link.fd, session, limits),
  attachReceiving: ({ link }, session, limits, patience) =>
    new PlainConnection(link.fd, session, limits, patience),
  attachShared: ({ link }, session, limits, patience) =>
    new PlainConnection(link.fd, session, limits, patience),
  endReceiving: ({ fd }) => void shutdown(fd, Shutdown.READ),
  hasArrived: ({ fd }) => peek(fd) === "byte",
};
