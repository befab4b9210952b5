/**
 * A process whose faults are served: its connection, on which it says once what its memory is and
 * nothing after that, and its userfaultfd. Used by one thread.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, Errno, fcntl, yieldProcessor } from "../../ffi/libc.ts";
import { FileControl, OpenFlag, PollEvent } from "../../ffi/linux.ts";
import { fileSystem } from "../../ffi/runtime/runtime.ts";
import { kernelPageBytes, Userfaultfd } from "../../ffi/userfaultfd.ts";
import { StreamError, SystemError } from "../errors.ts";
import { FAULT_LINGER_MS, REGION_MESSAGE_BYTES_MAX } from "../limits.ts";
import { closePassed, peerProcess, receivePassed } from "../net/passed_descriptor.ts";
import type { FaultClientFacts } from "./fault_server_messages.ts";
import { FaultTarget } from "./fault_target.ts";
import { PageFiller } from "./page_filler.ts";
import { PagePlacer, PlacementError } from "./page_placer.ts";
import { PageRange } from "./page_range.ts";
import type { PageReader } from "./page_reader.ts";
import { parseJson, rangesOf, REGION_ADDRESS_MIN, type ServedBlock } from "./region_message.ts";

const USERFAULTFD_LINK = "anon_inode:[userfaultfd]";
/** In front of all regions: to ask whether a process has memory, without ever changing it. */
const PROBE_BYTES = REGION_ADDRESS_MIN / 2; // whole pages wherever
const PROBE_ADDRESS = REGION_ADDRESS_MIN - PROBE_BYTES;

/** How often a page is poisoned anew, because others are being given back meanwhile. */
const POISON_TRIES_MAX = 10_000;

/** Its memory, once it has said what that is. */
interface ClientMemory {
  readonly userfaultfd: Userfaultfd;
  readonly ranges: readonly PageRange[];
  readonly target: FaultTarget;
  readonly filler: PageFiller;
}

/** See the module comment. */
export class FaultClient {
  readonly number: number;
  readonly pid: number;
  readonly connectedMs = performance.now();
  /** The first thing that it could not be given. */
  failure: unknown;
  /** Whether it has closed its end of the connection. */
  hasHungUp = false;
  readonly #socket: number;
  readonly #blocks: readonly ServedBlock[];
  readonly #onLost: (client: FaultClient, error: unknown) => void;
  #message: Arena | undefined = new Arena(REGION_MESSAGE_BYTES_MAX);
  #received = 0;
  #descriptor = -1;
  #memory: ClientMemory | undefined;
  #isSocketOpen = true;
  #releasedMs = 0;

  /** @param socket Belongs to this object. */
  constructor(
    number: number,
    socket: number,
    blocks: readonly ServedBlock[],
    onLost: (client: FaultClient, error: unknown) => void,
  ) {
    this.number = number;
    this.pid = peerProcess(socket);
    this.#socket = socket;
    this.#blocks = blocks;
    this.#onLost = onLost;
  }

  /** To be waited on for its end, and for its message; -1 when there is nothing to wait for. */
  get socket(): number {
    return this.#isSocketOpen && !this.hasHungUp ? this.#socket : -1;
  }

  /** To be waited on for faults; -1 before its message. */
  get userfaultfd(): number {
    return this.#memory?.userfaultfd.fd ?? -1;
  }

  /** Whether it has said what its memory is. */
  get isReady(): boolean {
    return this.#memory !== undefined;
  }

  facts(): FaultClientFacts {
    const { number, pid } = this;
    const counts = this.#memory?.target.counts;
    const bytes = this.#memory?.ranges.reduce((sum, range) => sum + range.bytes, 0) ?? 0;
    const [faults, faultedBytes] = [counts?.faults ?? 0, counts?.bytes ?? 0];
    return { number, pid, bytes, faults, faultedBytes, removedBytes: counts?.removed ?? 0 };
  }

  /**
   * Takes what has come on the connection.
   *
   * @throws {StreamError} for a message that cannot be served.
   */
  receive(reader: PageReader): void {
    const message = this.#message;
    if (message === undefined) return this.#receiveRest();
    const left = REGION_MESSAGE_BYTES_MAX - this.#received;
    const { bytes, descriptors } = receivePassed(
      this.#socket,
      message.address + this.#received,
      left,
    );
    if (bytes === -Errno.EAGAIN || bytes === -Errno.EINTR) return;
    const [first, ...more] = descriptors;
    if (first !== undefined && this.#descriptor < 0) this.#descriptor = first;
    else if (first !== undefined) more.push(first);
    closePassed(more);
    if (more.length > 0) throw refuse("more than one descriptor came, must be the userfaultfd");
    if (bytes <= 0) throw refuse("the connection ended before the message did");
    this.#received += bytes;
    const text = new TextDecoder().decode(message.u8.slice(0, this.#received));
    const json = parseJson(text);
    if (json !== undefined) this.#begin(json, reader);
    else if (this.#received === REGION_MESSAGE_BYTES_MAX) {
      throw refuse(`the message has more than ${REGION_MESSAGE_BYTES_MAX} bytes, or is not JSON`);
    }
  }

  /**
   * Serves what has been touched; the number of events, or `-errno`.
   *
   * @param ready What the userfaultfd was found to be, {@linkcode PollEvent}.
   * @throws {StreamError} for one that cannot be read without waiting, and for what is not served.
   */
  serve(ready: number): number {
    if (ready !== PollEvent.IN) {
      throw refuse("the userfaultfd must have had its handshake, and must stay O_NONBLOCK");
    }
    return this.#memory?.target.serve() ?? 0;
  }

  /**
   * Brings in something that nobody has touched; false when everything is there.
   *
   * @throws {MultifdError} when that is not possible; the next call goes on behind it.
   */
  fill(): boolean {
    return this.#memory?.filler.step() ?? true;
  }

  /** Whether the process is gone, or its memory is. */
  isGone(): boolean {
    const probe = this.#memory?.userfaultfd.zero(PROBE_ADDRESS, PROBE_BYTES);
    return probe === undefined ? this.hasHungUp : probe === -Errno.ESRCH;
  }

  /**
   * Everything is there: what is absent is the kernel's to make from now on. Whoever was about to give
   * pages back then waits until that is read, so events are to be read for a while.
   *
   * @returns Whether that while is over, and the process can be let go.
   */
  release(): boolean {
    if (this.#releasedMs === 0) {
      const { userfaultfd, ranges } = this.#memory!;
      for (const { address, bytes } of ranges) userfaultfd.unregister(address, bytes);
      this.#releasedMs = performance.now();
    }
    return performance.now() - this.#releasedMs > FAULT_LINGER_MS;
  }

  /** Tells the process, should it look, that it is not served as it should be. */
  closeSocket(): void {
    if (this.#isSocketOpen) close(this.#socket);
    this.#isSocketOpen = false;
  }

  /** Closes all of a process that is gone, or that has given us nothing to serve. */
  close(): void {
    if (this.#memory !== undefined) this.#memory.userfaultfd[Symbol.dispose]();
    else if (this.#descriptor >= 0) close(this.#descriptor);
    this.closeSocket();
  }

  /**
   * Leaves a process that lives: what it has not got is a mistake to touch, and never zeros. Where the
   * kernel cannot say so, the userfaultfd stays open as long as this process, so that it waits.
   */
  abandon(): void {
    const memory = this.#memory;
    let isSafe = true;
    for (const range of memory?.ranges ?? []) {
      for (let unit = range.placed.nextClear(0); unit < range.units;) {
        const end = range.placed.nextSet(unit);
        if (!this.#poison(range, unit, end)) isSafe = false;
        unit = range.placed.nextClear(end);
      }
    }
    if (isSafe) this.close();
    else this.closeSocket();
  }

  #begin(json: unknown, reader: PageReader): void {
    const fd = this.#descriptor;
    if (fd < 0) throw refuse("no descriptor came along, must be the userfaultfd");
    if (fileSystem().readlinkSync(`/proc/self/fd/${fd}`) !== USERFAULTFD_LINK) {
      throw refuse("the descriptor that came along is no userfaultfd");
    }
    const flags = fcntl(fd, FileControl.GETFL, 0);
    fcntl(fd, FileControl.SETFL, flags | OpenFlag.NONBLOCK);
    const ranges = rangesOf(json, this.#blocks).map((range) => new PageRange(range));
    const userfaultfd = new Userfaultfd(fd);
    const unitBytesMax = Math.max(...ranges.map(({ unitBytes }) => unitBytes));
    const placer = new PagePlacer(userfaultfd, reader, unitBytesMax);
    const nobody = (): void => {};
    this.#memory = {
      userfaultfd,
      ranges,
      filler: new PageFiller(new SharedArrayBuffer(4), ranges, new Uint32Array(), placer, nobody),
      target: new FaultTarget(userfaultfd, ranges, placer, {
        placed: nobody,
        // What it has unmapped meanwhile, it does not need.
        isNeedless: (_, error) =>
          this.isGone() || (error instanceof SystemError && error.errno === "ENOENT"),
        lost: (range, unit, error) => {
          // Its memory is not what it has said: the next page would fail as well.
          if (error instanceof PlacementError) throw error;
          this.#poison(range, unit, unit + 1);
          this.#onLost(this, error);
        },
      }),
    };
    this.#message = undefined;
  }

  /** Nothing is ever said again; but whoever says something must not fill memory or keep us awake. */
  #receiveRest(): void {
    const scratch = new Arena(4096);
    const { bytes, descriptors } = receivePassed(this.#socket, scratch.address, 4096);
    closePassed(descriptors);
    if (bytes === 0 || (bytes < 0 && bytes !== -Errno.EAGAIN && bytes !== -Errno.EINTR)) {
      this.hasHungUp = true;
    }
  }

  #poison(range: PageRange, first: number, end: number): boolean {
    const { userfaultfd } = this.#memory!;
    const address = range.address + first * range.unitBytes;
    const bytes = (end - first) * range.unitBytes;
    let triesLeft = POISON_TRIES_MAX;
    for (let at = 0; at < bytes;) {
      const done = userfaultfd.poison(address + at, bytes - at);
      if (done > 0) at += done;
      else if (done === -Errno.EAGAIN && --triesLeft > 0) {
        // Somebody gives pages back, and waits until that is read.
        userfaultfd.read();
        yieldProcessor();
      } else if (done === -Errno.EEXIST) at += Math.min(kernelPageBytes(), range.unitBytes);
      else if (done === -Errno.EINVAL && at % range.unitBytes !== 0) {
        at += range.unitBytes - (at % range.unitBytes); // a huge page, which is there as a whole
      } else return done === -Errno.ESRCH || done === -Errno.ENOENT; // nobody is there to be told
    }
    return true;
  }
}

function refuse(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_REGIONS", `Cannot serve page faults: ${reason}`);
}
