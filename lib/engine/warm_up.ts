/**
 * Rehearses the page path until the JIT has compiled it: a channel's own code moves scratch pages
 * over a socket pair. A channel thread is young and so is its code; without the rehearsal a third of
 * the CPU time of a 1 GiB transfer went into running it interpreted and into compiling it, at the
 * moment when the guest waits. The channels do it while the connections are being made.
 *
 * @module
 */
import { gc } from "bun";
import { Arena } from "../../ffi/arena.ts";
import { close, shutdown, socketpair, unwrap } from "../../ffi/libc.ts";
import { AddressFamily, Shutdown, SocketType } from "../../ffi/linux.ts";
import { RawEncoder } from "../codec/none.ts";
import { PACKET_PAYLOAD_BYTES, TIMEOUTS_DEFAULT } from "../limits.ts";
import { BlockTable, type TableBlock } from "../memory/block_table.ts";
import { RamBlock } from "../memory/ram_block.ts";
import { Connection } from "../net/connection.ts";
import { configureSocket } from "../net/socket.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { SessionControl } from "../sync/session_control.ts";
import { PacketBuilder } from "./packet_builder.ts";
import { ReceiveChannel } from "./receive_channel.ts";
import { ReceiveState } from "./receive_state.ts";
import { StatisticsTable } from "./statistics.ts";

/**
 * Packets to rehearse with. The last compiler takes a loop after some 100,000 rounds, so the pages
 * of this many packets are just above that.
 */
const PACKETS = 1000;

/** Every so many pages one is normal: both branches run, and few bytes have to be copied. */
const NORMAL_PAGE_STEP = 32;

/**
 * Bytes in the socket pair at once. They fit its default buffer with what the kernel adds to them:
 * sender and receiver are one thread here, which would wait for itself.
 */
const IN_FLIGHT_BYTES = 98_304;

/** Nobody stops a rehearsal; it ends by itself. */
const rehearsalControl = new SessionControl();

/** Rehearses a send channel: builds packets and writes them. Ends early when `session` stops. */
export function warmUpSender(pageSize: number, session: Stoppable): void {
  const { builder, block, pages, scratch } = new Rehearsal(pageSize);
  using pair = new SocketPair();
  for (let packet = 0; packet < PACKETS && !session.stopping; packet++) {
    builder.buildPages(block, pages, 0, pages.length, packet);
    const { bytes } = builder.iovecs;
    pair.near.sendList(builder.iovecs);
    pair.far.receive(scratch.address, bytes);
  }
  releaseScratch();
}

/**
 * Rehearses a receive channel: reads packets and puts their pages in place. Ends early when
 * `session` stops.
 */
export function warmUpReceiver(pageSize: number, session: Stoppable): void {
  const { builder, block, pages, scratch, table, control } = new Rehearsal(pageSize);
  using channel = new ReceiveChannel({
    channel: 0,
    pageSize,
    compression: { method: "none", level: 1 },
    state: new ReceiveState(1, control),
    control,
    blocks: table,
    counters: new StatisticsTable(1).channel(0),
    devices: [],
    idleMs: TIMEOUTS_DEFAULT.idleMs,
  });
  builder.buildPages(block, pages, 0, pages.length, 0);
  const { bytes } = builder.iovecs;
  const packetsInFlight = Math.floor(IN_FLIGHT_BYTES / bytes);
  for (let packet = 0; packet < PACKETS && !session.stopping; packet += packetsInFlight) {
    using pair = new SocketPair();
    if (packet === 0) {
      // Once through a socket, which is how the packet's scattered parts become one piece.
      pair.near.sendList(builder.iovecs);
      pair.far.receive(scratch.address, bytes);
    }
    for (let index = 0; index < packetsInFlight; index++) {
      pair.near.send(scratch.address, bytes);
    }
    shutdown(pair.near.fd, Shutdown.WRITE);
    channel.run(pair.far);
  }
  releaseScratch();
}

/** A young thread would not collect for a long time, and a megabyte a channel counts. */
function releaseScratch(): void {
  gc(true);
}

/** A small block of scratch memory, mostly zero, and what it takes to send it. */
class Rehearsal {
  readonly control = rehearsalControl;
  readonly table: BlockTable;
  readonly block: TableBlock;
  readonly builder: PacketBuilder;
  readonly pages: Uint32Array;
  /** Room for one packet. */
  readonly scratch: Arena;
  readonly #memory: RamBlock;

  constructor(pageSize: number) {
    const format = { pageSize, methodFlag: 0, detectZeroPages: true };
    this.builder = new PacketBuilder(format, new RawEncoder());
    const { pagesMax } = this.builder;
    this.pages = Uint32Array.from({ length: pagesMax }, (_, page) => page);
    this.#memory = RamBlock.allocate("rehearsal", pagesMax * pageSize, { pageSize });
    const bytes = this.#memory.view(0, pagesMax * pageSize);
    for (let page = 0; page < pagesMax; page += NORMAL_PAGE_STEP) bytes[page * pageSize] = 1;
    this.table = new BlockTable(this.#memory.bytes);
    this.block = this.table.add(this.#memory);
    this.scratch = new Arena(PACKET_PAYLOAD_BYTES);
  }
}

/** Two connected sockets of this thread. */
class SocketPair implements Disposable {
  readonly near: Connection;
  readonly far: Connection;

  constructor() {
    const fds = new Arena(8);
    const type = SocketType.STREAM | SocketType.CLOEXEC;
    unwrap("Cannot rehearse", socketpair(AddressFamily.UNIX, type, 0, fds.address));
    const [near, far] = fds.u32;
    // With the ticks of every other socket: what does not fit the pair ends in an error, not a hang.
    configureSocket(near, false);
    configureSocket(far, false);
    this.near = new Connection(near, rehearsalControl, TIMEOUTS_DEFAULT);
    this.far = new Connection(far, rehearsalControl, TIMEOUTS_DEFAULT);
  }

  [Symbol.dispose](): void {
    close(this.near.fd);
    close(this.far.fd);
  }
}
