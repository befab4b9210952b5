/**
 * Write tracking by the kernel: a userfaultfd in asynchronous write-protect mode remembers which
 * pages were written, and the PAGEMAP_SCAN ioctl reads and re-arms that memory in one step. Nobody
 * handles a fault and no writer changes; both came with Linux 6.7.
 *
 * @module
 */
import { NativeType, readNative } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { LIBC } from "./libc.ts";
import { openLibrary } from "./library.ts";

const ADDRESS = NativeType.ptr;
const INT = NativeType.i32;
const LONG = NativeType.i64_fast;

const SYMBOLS = {
  __errno_location: { args: [], returns: ADDRESS }, // int * of the calling thread
  syscall: { args: [LONG, LONG], returns: LONG }, // number, first argument; variadic in C
  ioctl: { args: [INT, NativeType.u64_fast, ADDRESS], returns: INT }, // fd, request, struct *; variadic in C
  open: { args: [NativeType.cstring, INT, INT], returns: INT }, // pathname, flags, mode
  close: { args: [INT], returns: INT },
  getpagesize: { args: [], returns: INT },
} as const;

type Native = ReturnType<typeof open>;
type Address = Parameters<Native["ioctl"]>[2];

const open = () => openLibrary(LIBC, SYMBOLS);
let opened: Native | undefined;
let errnoAddress = 0 as unknown as Parameters<typeof readNative.i32>[0]; // per thread, as this module is

function native(): Native {
  if (opened === undefined) {
    opened = open();
    errnoAddress = opened.__errno_location() as typeof errnoAddress;
  }
  return opened;
}

/** Turns C's -1 into `-errno`; must directly follow the call. */
function result(value: number | bigint): number {
  return value === -1 ? -readNative.i32(errnoAddress, 0) : Number(value);
}

const SYSCALL_NUMBERS: Readonly<Record<string, number>> = { x64: 323, arm64: 282 };
const ENOSYS = 38;
const EIO = 5;
const O_CLOEXEC = 0o2000000;
const UFFD_USER_MODE_ONLY = 1; // what an unprivileged process may have; asynchronous mode needs no more

/*
 * struct uffdio_api                 struct uffdio_register        struct pm_scan_arg
 *    0 u64 api = 0xaa                  0 u64 start                   0 u64 size = 96
 *    8 u64 features wanted/there       8 u64 length                  8 u64 flags
 *   16 u64 ioctls                     16 u64 mode                   16 u64 start    24 u64 end
 *                                     24 u64 ioctls there           32 u64 walk_end: first not scanned
 *                                                                   40 u64 vec      48 u64 vec_len
 * struct page_region                                                56 u64 max_pages
 *    0 u64 start  8 u64 end  16 u64 categories                      64 u64 inverted, mask, any of
 *                                                                   88 u64 return mask
 */
const UFFDIO_API = 0xc018_aa3f;
const UFFDIO_REGISTER = 0xc020_aa00;
const PAGEMAP_SCAN = 0xc060_6610;
const API_VERSION = 0xaa;
const FEATURE_WP_ASYNC = 1 << 15;
const MODE_WRITE_PROTECT = 2;
const SCAN_ARGUMENT_BYTES = 96;
const SCAN_WP_MATCHING = 1;
const SCAN_CHECK_WPASYNC = 2;
const PAGE_IS_WRITTEN = 2;

const ARGUMENT_AT = 0;
const REGIONS_AT = 128;
const REGION_BYTES = 24;
/** Regions one scan reports; a block with more is scanned in several steps. */
const REGIONS_MAX = 2048;

/** Bytes of a page as the kernel protects it. */
export function kernelPageBytes(): number {
  return native().getpagesize();
}

/** Takes the regions of a scan: addresses from `start` up to, not including, `end`. */
type RegionVisitor = (start: number, end: number) => void;

/**
 * Tracks writes by threads of this process to ranges of its own memory. Used by one thread; the
 * tracked memory must stay allocated until it is disposed.
 */
export class WriteTracker implements Disposable {
  readonly #arena = new Arena(REGIONS_AT + REGIONS_MAX * REGION_BYTES);
  #uffd: number;
  #pagemap: number;

  private constructor(uffd: number, pagemap: number) {
    this.#uffd = uffd;
    this.#pagemap = pagemap;
  }

  /** Opens the kernel's interfaces; a tracker, or `-errno` when this kernel or user has none. */
  static open(): WriteTracker | number {
    const number = SYSCALL_NUMBERS[process.arch];
    if (process.platform !== "linux" || number === undefined) return -ENOSYS;
    const uffd = result(native().syscall(number, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    if (uffd < 0) return uffd;
    const pagemap = result(native().open("/proc/self/pagemap", O_CLOEXEC, 0));
    if (pagemap < 0) {
      native().close(uffd);
      return pagemap;
    }
    const tracker = new WriteTracker(uffd, pagemap);
    const arena = tracker.#arena;
    arena.setPointer(ARGUMENT_AT, API_VERSION);
    arena.setPointer(ARGUMENT_AT + 8, FEATURE_WP_ASYNC);
    const status = result(native().ioctl(uffd, UFFDIO_API, arena.address as unknown as Address));
    if (status < 0) {
      tracker[Symbol.dispose]();
      return status;
    }
    return tracker;
  }

  /** Begins to track a range of whole kernel pages; 0 or `-errno`. All of it counts as written. */
  add(address: number, bytes: number): number {
    const arena = this.#arena;
    arena.setPointer(ARGUMENT_AT, address);
    arena.setPointer(ARGUMENT_AT + 8, bytes);
    arena.setPointer(ARGUMENT_AT + 16, MODE_WRITE_PROTECT);
    arena.setPointer(ARGUMENT_AT + 24, 0);
    return result(native().ioctl(this.#uffd, UFFDIO_REGISTER, arena.address as unknown as Address));
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
      const count = result(
        native().ioctl(this.#pagemap, PAGEMAP_SCAN, arena.address as unknown as Address),
      );
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
    if (this.#uffd >= 0) native().close(this.#uffd);
    if (this.#pagemap >= 0) native().close(this.#pagemap);
    this.#uffd = -1;
    this.#pagemap = -1;
  }
}
