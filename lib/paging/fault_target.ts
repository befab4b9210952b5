/**
 * One memory whose faults are served: reads what the kernel tells of it and brings in what is
 * touched: the page itself at once, and its neighbours when nobody else waits. Used by one thread.
 *
 * @module
 */
import { Errno } from "../../ffi/libc.ts";
import { FaultEvent, FaultFlag, kernelPageBytes, type Userfaultfd } from "../../ffi/userfaultfd.ts";
import { StreamError } from "../errors.ts";
import { FAULT_AROUND_BYTES, FAULT_READ_PAUSE_MS, FAULT_READS_MAX } from "../limits.ts";
import { PlacementError, type PagePlacer } from "./page_placer.ts";
import type { PageRange } from "./page_range.ts";

/** What becomes of faults. */
interface FaultEvents {
  /** Units with content have been placed. */
  placed(range: PageRange, units: number): void;
  /** Whether a range needs nothing any more, so that an error in it is none. */
  isNeedless(range: PageRange, error: unknown): boolean;
  /** A unit that somebody waits for cannot be brought in, whatever was tried; may throw to give up. */
  lost(range: PageRange, unit: number, error: unknown): void;
}

/** What was done so far. */
interface FaultCounts {
  /** Faults that were read. */
  faults: number;
  /** Bytes that were brought in because they were touched, with what is around them. */
  bytes: number;
  /** Bytes that the owner of the memory has given back. */
  removed: number;
}

/** Pages whose neighbours may have to wait. */
const LONELY_PAGES_MAX = 64;

const NOT_ABSENT = FaultFlag.WRITE_PROTECTED | FaultFlag.MINOR;

const pause = new Int32Array(new SharedArrayBuffer(4));

/** See the module comment. */
export class FaultTarget {
  readonly counts: FaultCounts = { faults: 0, bytes: 0, removed: 0 };
  readonly #userfaultfd: Userfaultfd;
  /** In ascending order of their addresses. */
  readonly #ranges: readonly PageRange[];
  readonly #placer: PagePlacer;
  readonly #events: FaultEvents;
  /** Pages that were brought in, and whose neighbours were not. */
  readonly #lonely: { readonly range: PageRange; readonly unit: number }[] = [];

  constructor(
    userfaultfd: Userfaultfd,
    ranges: readonly PageRange[],
    placer: PagePlacer,
    events: FaultEvents,
  ) {
    this.#userfaultfd = userfaultfd;
    this.#ranges = ranges.toSorted((left, right) => left.address - right.address);
    this.#placer = placer;
    this.#events = events;
  }

  /**
   * Serves what has happened since the last call, or else the neighbours of a page.
   *
   * @returns How many things were done, or `-errno`.
   * @throws {StreamError} for an event that is not served.
   */
  serve(): number {
    const events = this.#userfaultfd.read();
    if (events === 0) return this.#bringInNeighbours();
    // Removals first: what is touched after that is zero. Whoever removes waits until it is read, so
    // a page that was placed before is removed behind it.
    for (let index = 0; index < events; index++) {
      const event = this.#userfaultfd.eventAt(index);
      if (event === FaultEvent.REMOVE) this.#remove(index);
      else if (event === FaultEvent.FORK)
        throw refuse("the process has forked, and no child is served");
      else if (
        event === FaultEvent.PAGEFAULT &&
        (this.#userfaultfd.flagsAt(index) & NOT_ABSENT) !== 0
      ) {
        throw refuse("faults must be of pages that are absent, not protected or minor ones");
      }
    }
    for (let index = 0; index < events; index++) {
      if (this.#userfaultfd.eventAt(index) === FaultEvent.PAGEFAULT) {
        this.#fault(this.#userfaultfd.addressAt(index));
      }
    }
    return events;
  }

  #fault(address: number): void {
    this.counts.faults++;
    const range = this.#find(address);
    if (range === undefined) return;
    const unit = Math.floor((address - range.address) / range.unitBytes);
    if (range.placed.has(unit)) return this.#refault(range, unit, address);
    // Whoever has taken it on wakes those who wait for it.
    if (!range.claim(unit)) return;
    if (!this.#bringIn(range, unit)) return;
    this.#lonely.push({ range, unit });
    if (this.#lonely.length > LONELY_PAGES_MAX) this.#lonely.shift(); // the oldest is the coldest
  }

  /** Of the page that was touched last; 0 when all have theirs. */
  #bringInNeighbours(): number {
    const page = this.#lonely.pop();
    if (page === undefined) return 0;
    const { range, unit } = page;
    const aroundUnits = Math.max(1, FAULT_AROUND_BYTES / range.unitBytes);
    const start = Math.floor(unit / aroundUnits) * aroundUnits;
    const end = Math.min(start + aroundUnits, range.units);
    this.#bringInAround(range, unit + 1, end);
    this.#bringInAround(range, start, unit);
    return 1;
  }

  /**
   * A page that was placed and has gone is one that its owner has given back: it is zero. The others of
   * its unit may be there, unless they are one huge page.
   */
  #refault(range: PageRange, unit: number, address: number): void {
    let bytes = Math.min(kernelPageBytes(), range.unitBytes);
    let to = address - (address % bytes);
    let done = this.#placer.clear(to, bytes);
    if (done === -Errno.EINVAL) {
      bytes = range.unitBytes;
      to = range.address + unit * bytes;
      done = this.#placer.clear(to, bytes);
    }
    if (done < 0) this.#userfaultfd.wake(to, bytes);
  }

  /** Brings in a unit that was taken on, with patience; whether it is there. */
  #bringIn(range: PageRange, unit: number): boolean {
    for (let attempt = 1; ; attempt++) {
      try {
        const placed = this.#placer.place(range, unit, unit + 1);
        this.#count(range, unit, placed);
        return placed === 1; // who waits looks again, and is told of anew
      } catch (error) {
        if (this.#events.isNeedless(range, error)) return false;
        if (!range.claim(unit)) return false; // somebody else tries
        if (attempt === FAULT_READS_MAX || error instanceof PlacementError) {
          // It stays taken on: nobody is to try again.
          this.#events.lost(range, unit, error);
          return false;
        }
        Atomics.wait(pause, 0, 0, FAULT_READ_PAUSE_MS);
      }
    }
  }

  /** Nobody waits for these yet; those that fail are taken back and fail when they are touched. */
  #bringInAround(range: PageRange, start: number, end: number): void {
    try {
      for (let first = start; first < end;) {
        if (!range.claim(first)) {
          first++;
          continue;
        }
        const stop = range.claimAfter(first, end);
        const placed = this.#placer.place(range, first, stop);
        this.#count(range, first, placed);
        if (placed < stop - first) return;
        first = stop;
      }
    } catch {
      // Told when somebody touches one of them.
    }
  }

  #count(range: PageRange, first: number, units: number): void {
    this.counts.bytes += units * range.unitBytes;
    if (units > 0 && range.hasContent(first)) this.#events.placed(range, units);
  }

  #remove(index: number): void {
    const start = this.#userfaultfd.startAt(index);
    const end = this.#userfaultfd.addressAt(index);
    for (const range of this.#ranges) {
      const from = Math.max(start, range.address) - range.address;
      const to = Math.min(end, range.address + range.bytes) - range.address;
      if (from >= to) continue;
      const { unitBytes } = range;
      const first = Math.ceil(from / unitBytes);
      const last = Math.floor(to / unitBytes);
      if (first < last) removeUnits(range, first, last);
      if (from < first * unitBytes) removePart(range, from, Math.min(to, first * unitBytes));
      if (first <= last && last * unitBytes < to) removePart(range, last * unitBytes, to);
      this.counts.removed += to - from;
    }
  }

  #find(address: number): PageRange | undefined {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle].address <= address) low = middle + 1;
      else high = middle;
    }
    const range = this.#ranges[low - 1];
    return range !== undefined && address < range.address + range.bytes ? range : undefined;
  }
}

/** Units that were given back need nothing any more. */
function removeUnits(range: PageRange, first: number, end: number): void {
  range.claimAll(first, end);
  range.placed.setRange(first, end);
}

/** The rest of the unit has its content yet; where it is in place, what was given back is touched anew. */
function removePart(range: PageRange, from: number, to: number): void {
  const unit = Math.floor(from / range.unitBytes);
  if (range.placed.has(unit)) return;
  if (range.removePart(from, to)) removeUnits(range, unit, unit + 1);
}

function refuse(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_REGIONS", `Cannot serve page faults: ${reason}`);
}
