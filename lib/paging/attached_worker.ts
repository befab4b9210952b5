/**
 * The life of a thread that brings in the pages of attached blocks: those that are touched, or those
 * that nobody has touched yet.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { copyMemory, errnoName, mprotect, poll, unwrap, writeFd } from "../../ffi/libc.ts";
import { MemoryMap, PollEvent } from "../../ffi/linux.ts";
import { Userfaultfd } from "../../ffi/userfaultfd.ts";
import { describeError, SystemError } from "../errors.ts";
import { FAULT_SPIN_MS, WAIT_TICK_MS } from "../limits.ts";
import { Residency } from "../memory/residency.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { SessionControl } from "../sync/session_control.ts";
import { threadPort } from "../thread/thread_port.ts";
import type { AttachedReply, AttachedTask, AttachedWork } from "./attached_messages.ts";
import { FaultTarget } from "./fault_target.ts";
import { PageFiller } from "./page_filler.ts";
import { PagePlacer, type PageMemory } from "./page_placer.ts";
import { PageRange } from "./page_range.ts";
import type { PageReader } from "./page_reader.ts";

/** Works until all pages are there or the blocks are disposed of. */
export function runAttachedPages(
  job: AttachedWork & AttachedTask,
  openReader: (session: Stoppable) => PageReader,
): void {
  const control = new SessionControl(job.control);
  const pages = new AttachedPages(job, control);
  try {
    using reader = openReader(control);
    if (job.task === "serve") pages.serve(reader);
    else pages.fill(reader);
  } catch (error) {
    // Not thrown on: that would stop the threads that can go on.
    pages.fail(error);
  }
}

const STDERR = 2;

class AttachedPages {
  readonly #job: AttachedWork & AttachedTask;
  readonly #control: SessionControl;
  readonly #ranges: readonly PageRange[];
  readonly #residencies: readonly Residency[];
  readonly #userfaultfd: Userfaultfd | undefined;

  constructor(job: AttachedWork & AttachedTask, control: SessionControl) {
    this.#job = job;
    this.#control = control;
    this.#ranges = job.ranges.map((range) => new PageRange(range));
    this.#residencies = job.residencies.map((shared) => new Residency(shared));
    this.#userfaultfd = job.userfaultfd < 0 ? undefined : new Userfaultfd(job.userfaultfd);
  }

  /** Serves faults until nothing is missing. */
  serve(reader: PageReader): void {
    const { hasFillers, counts } = this.#job;
    const userfaultfd = this.#userfaultfd!;
    const placer = this.#placer(userfaultfd, reader);
    const target = new FaultTarget(userfaultfd, this.#ranges, placer, {
      placed: (range, units) => this.#placed(range, units),
      isNeedless: (range) => this.#residencies[range.block].isResident,
      lost: (range, unit, error) => this.#lose(range, unit, error),
    });
    const filler = hasFillers ? undefined : this.#filler(placer);
    const pollfd = new Arena(8);
    pollfd.view.setInt32(0, userfaultfd.fd, true);
    pollfd.view.setInt16(4, PollEvent.IN, true);
    const words = new Float64Array(counts);
    threadPort().postMessage({ kind: "ready" } satisfies AttachedReply);
    let last = performance.now();
    while (!this.#control.stopping && !this.#isDone) {
      const events = target.serve();
      if (events !== 0) {
        unwrap(`Cannot serve page faults of ${this.#job.path}`, events);
        words[0] = target.counts.faults;
        words[1] = target.counts.bytes;
        last = performance.now();
        continue;
      }
      if (filler !== undefined && this.#isWanted && this.#step(filler)) continue;
      if (performance.now() - last < FAULT_SPIN_MS) continue;
      poll(pollfd.address, 1, WAIT_TICK_MS);
    }
  }

  /** Brings in what nobody has touched yet. */
  fill(reader: PageReader): void {
    const memory = this.#userfaultfd ?? unwatched;
    const filler = this.#filler(this.#placer(memory, reader));
    while (!this.#control.stopping && this.#step(filler)) {
      // Next.
    }
  }

  /** The thread cannot go on: who waits for a page must not wait for ever, and must not read zeros. */
  fail(error: unknown): void {
    this.#control.record(error, { peer: this.#job.path });
    for (const residency of this.#residencies) residency.markFailed();
    if (this.#job.task !== "serve" || this.#control.stopping) return;
    this.#say(`${this.#job.path}: ${describeError(error)}`);
    for (const range of this.#ranges) {
      for (let unit = range.placed.nextClear(0); unit < range.units;) {
        const end = range.placed.nextSet(unit);
        this.#condemn(range, unit, end);
        unit = range.placed.nextClear(end);
      }
    }
  }

  get #isDone(): boolean {
    return this.#residencies.every(({ isResident }) => isResident);
  }

  get #isWanted(): boolean {
    return this.#residencies.some(({ isWanted, isResident }) => isWanted && !isResident);
  }

  #placer(memory: PageMemory, reader: PageReader): PagePlacer {
    return new PagePlacer(
      memory,
      reader,
      Math.max(...this.#ranges.map((range) => range.unitBytes)),
    );
  }

  #filler(placer: PagePlacer): PageFiller {
    const placed = (range: PageRange, units: number): void => this.#placed(range, units);
    const { cursor, first } = this.#job;
    return new PageFiller(cursor, this.#ranges, first, placer, placed);
  }

  /** One piece; a failure is told, and costs the rest of that piece only. */
  #step(filler: PageFiller): boolean {
    try {
      return filler.step();
    } catch (error) {
      this.#control.record(error, { peer: this.#job.path });
      for (const residency of this.#residencies) residency.markFailed();
      return true;
    }
  }

  #placed(range: PageRange, units: number): void {
    const residency = this.#residencies[range.block];
    if (!residency.placed(units)) return;
    // First: who fails because nobody watches the range any more must see why.
    residency.markResident();
    // What is absent still has no content, and is the kernel's to make.
    this.#userfaultfd?.unregister(range.address, range.bytes);
  }

  #lose(range: PageRange, unit: number, error: unknown): void {
    this.#control.record(error, { peer: this.#job.path });
    this.#residencies[range.block].markFailed();
    const place = `byte ${unit * range.unitBytes} of RAM block ${range.idstr}`;
    this.#say(`${this.#job.path}: ${place} is touched and cannot be had: ${describeError(error)}`);
    this.#condemn(range, unit, unit + 1);
  }

  /** Makes units a mistake to touch, for those who wait for them too. */
  #condemn(range: PageRange, first: number, end: number): void {
    const userfaultfd = this.#userfaultfd!;
    const address = range.address + first * range.unitBytes;
    const bytes = (end - first) * range.unitBytes;
    for (let at = 0; at < bytes;) {
      const done = userfaultfd.poison(address + at, bytes - at);
      if (done > 0) {
        at += done;
        continue;
      }
      const status = mprotect(address + at, bytes - at, MemoryMap.PROT_NONE);
      if (status < 0) {
        const errno = errnoName(-status);
        throw new SystemError(`Cannot forbid memory whose pages are missing: ${errno}`, { errno });
      }
      userfaultfd.wake(address + at, bytes - at);
      return;
    }
  }

  /** The process is about to end by a signal, which has no words. */
  #say(text: string): void {
    const bytes = new TextEncoder().encode(`multifd: ${text}\n`);
    const arena = new Arena(bytes.byteLength);
    arena.u8.set(bytes);
    writeFd(STDERR, arena.address, bytes.byteLength);
  }
}

/** Memory that nobody watches, all zero. */
const unwatched: PageMemory = {
  copy(to, from, bytes) {
    copyMemory(to, from, bytes);
    return bytes;
  },
  zero: (_, bytes) => bytes,
  wake: () => 0,
};
