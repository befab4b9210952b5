/**
 * Write tracking by the kernel: a userfaultfd in asynchronous write-protect mode remembers which
 * pages were written, and the PAGEMAP_SCAN ioctl reads and re-arms that memory in one step. Nobody
 * handles a fault and no writer changes; both came with Linux 6.7.
 *
 * @module
 */
import { Arena } from "./arena.ts";
import { close, openFile } from "./libc.ts";
import { OpenFlag } from "./linux.ts";
import { FaultFeature, FaultMode, ioctl, Userfaultfd } from "./userfaultfd.ts";

const EIO = 5;

/*
 * struct pm_scan_arg                              struct page_region
 *    0 u64 size = 96    8 u64 flags                  0 u64 start  8 u64 end  16 u64 categories
 *   16 u64 start       24 u64 end
 *   32 u64 walk_end: first not scanned
 *   40 u64 vec         48 u64 vec_len
 *   56 u64 max_pages
 *   64 u64 inverted, mask, any of
 *   88 u64 return mask
 */
const PAGEMAP_SCAN = 0xc060_6610;
const SCAN_ARGUMENT_BYTES = 96;
const SCAN_WP_MATCHING = 1;
const SCAN_CHECK_WPASYNC = 2;
const PAGE_IS_WRITTEN = 2;

const ARGUMENT_AT = 0;
const REGIONS_AT = 128;
const REGION_BYTES = 24;
/** Regions one scan reports; a block with more is scanned in several steps. */
const REGIONS_MAX = 2048;

/** Takes the regions of a scan: addresses from `start` up to, not including, `end`. */
type RegionVisitor = (start: number, end: number) => void;

/**
 * Tracks writes by threads of this process to ranges of its own memory. Used by one thread; the
 * tracked memory must stay allocated until it is disposed.
 */
export class WriteTracker implements Disposable {
  readonly #arena = new Arena(REGIONS_AT + REGIONS_MAX * REGION_BYTES);
  readonly #userfaultfd: Userfaultfd;
  readonly #pagemap: number;
  #disposed = false;

  private constructor(userfaultfd: Userfaultfd, pagemap: number) {
    this.#userfaultfd = userfaultfd;
    this.#pagemap = pagemap;
  }

  /** Opens the kernel's interfaces; a tracker, or `-errno` when this kernel or user has none. */
  static open(): WriteTracker | number {
    // Nobody handles a fault, so the scope of an unprivileged process is as good as any.
    const userfaultfd = Userfaultfd.open("user", FaultFeature.WP_ASYNC);
    if (typeof userfaultfd === "number") return userfaultfd;
    const pagemap = openFile("/proc/self/pagemap", OpenFlag.CLOEXEC);
    if (pagemap >= 0) return new WriteTracker(userfaultfd, pagemap);
    userfaultfd[Symbol.dispose]();
    return pagemap;
  }

  /** Begins to track a range of whole kernel pages; 0 or `-errno`. All of it counts as written. */
  add(address: number, bytes: number): number {
    return this.#userfaultfd.register(address, bytes, FaultMode.WRITE_PROTECT);
  }

  /**
   * Visits what was written in a tracked range since the last scan, in ascending order, and counts it
   * as not written from then on. Each page is read and re-armed in one step: a write beside the scan
   * is in this one or in the next.
   *
   * @returns 0 or `-errno`; after an error what was not visited still counts as written.
   */
  scan(address: number, bytes: number, visit: RegionVisitor): number {
    const arena = this.#arena;
    const end = address + bytes;
    for (let start = address; start < end;) {
      arena.setPointer(ARGUMENT_AT, SCAN_ARGUMENT_BYTES);
      arena.setPointer(ARGUMENT_AT + 8, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC);
      arena.setPointer(ARGUMENT_AT + 16, start);
      arena.setPointer(ARGUMENT_AT + 24, end);
      arena.setPointer(ARGUMENT_AT + 32, 0);
      arena.setPointer(ARGUMENT_AT + 40, arena.address + REGIONS_AT);
      arena.setPointer(ARGUMENT_AT + 48, REGIONS_MAX);
      arena.setPointer(ARGUMENT_AT + 56, 0);
      arena.setPointer(ARGUMENT_AT + 64, 0);
      arena.setPointer(ARGUMENT_AT + 72, PAGE_IS_WRITTEN);
      arena.setPointer(ARGUMENT_AT + 80, 0);
      arena.setPointer(ARGUMENT_AT + 88, PAGE_IS_WRITTEN);
      const count = ioctl(this.#pagemap, PAGEMAP_SCAN, arena.address);
      if (count < 0) return count;
      for (let region = 0; region < count; region++) {
        const at = REGIONS_AT + region * REGION_BYTES;
        visit(arena.pointerAt(at), arena.pointerAt(at + 8));
      }
      const walkEnd = arena.pointerAt(ARGUMENT_AT + 32);
      if (walkEnd <= start) return -EIO; // cannot happen, and must not become an endless loop
      start = walkEnd;
    }
    return 0;
  }

  /** Ends all tracking; the memory is as any other again. Safe to call twice. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#userfaultfd[Symbol.dispose]();
    close(this.#pagemap);
  }
}
