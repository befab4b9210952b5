/**
 * userfaultfd: the kernel tells a descriptor which pages of a range are touched and are not there,
 * and lets whoever touches them wait until somebody has put them in place.
 *
 * All calls return a result or `-errno`.
 *
 * @module
 */
import { NativeType, readNative } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { close, errnoName, fcntl, LIBC, openFile, readFd } from "./libc.ts";
import { openLibrary } from "./library.ts";
import { FileControl, OpenFlag } from "./linux.ts";

const ADDRESS = NativeType.ptr;
const INT = NativeType.i32;
const LONG = NativeType.i64_fast;

const SYMBOLS = {
  __errno_location: { args: [], returns: ADDRESS }, // int * of the calling thread
  syscall: { args: [LONG, LONG, LONG, LONG, LONG, LONG, LONG], returns: LONG }, // number, arguments; variadic in C
  ioctl: { args: [INT, NativeType.u64_fast, ADDRESS], returns: INT }, // fd, request, struct *; variadic in C
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

/** `ioctl` with the address of a struct, or a number, as its argument. */
export function ioctl(fd: number, request: number, argument: number): number {
  return result(native().ioctl(fd, request, argument as unknown as Address));
}

/** Bytes of a page as the kernel protects and places it. */
export function kernelPageBytes(): number {
  return native().getpagesize();
}

const SYSCALL_NUMBERS: Readonly<Record<string, number>> = { x64: 323, arm64: 282 };
const PREADV2_NUMBERS: Readonly<Record<string, number>> = { x64: 327, arm64: 286 };
const RWF_NOWAIT = 8;
const POSITION_NONE = -1;
const DEVICE = "/dev/userfaultfd";
const DESCRIPTOR_FLAGS = OpenFlag.CLOEXEC | OpenFlag.NONBLOCK;
/** What an unprivileged process may have: system calls on absent pages fail with EFAULT. */
const USER_MODE_ONLY = 1;
const EPERM = 1;
const EAGAIN = 11;
const EINVAL = 22;
const ENOSYS = 38;
const EOPNOTSUPP = 95;

/*
 * struct uffdio_api                 struct uffdio_register          struct uffdio_copy
 *    0 u64 api = 0xaa                  0 u64 start, 8 u64 length       0 u64 to  8 u64 from
 *    8 u64 features wanted/there      16 u64 mode                     16 u64 length  24 u64 mode
 *   16 u64 ioctls                     24 u64 ioctls there             32 s64 copied, or -errno
 *
 * struct uffdio_zeropage and uffdio_poison: 0 u64 start  8 u64 length  16 u64 mode  24 s64 done
 *
 * struct iovec at 40 u64 address  48 u64 length, of the events
 *
 * struct uffd_msg, 32 bytes: 0 u8 event; of a fault 8 u64 flags, 16 u64 address; of a removal
 * 8 u64 start, 16 u64 end; of a fork 8 u32 descriptor of the child
 */
const UFFDIO_API = 0xc018_aa3f;
const UFFDIO_REGISTER = 0xc020_aa00;
const UFFDIO_UNREGISTER = 0x8010_aa01;
const UFFDIO_WAKE = 0x8010_aa02;
const UFFDIO_COPY = 0xc028_aa03;
const UFFDIO_ZEROPAGE = 0xc020_aa04;
const UFFDIO_POISON = 0xc020_aa08;
const USERFAULTFD_IOC_NEW = 0xaa00;
const API_VERSION = 0xaa;
const MESSAGE_BYTES = 32;
/** Events that one read takes. */
const MESSAGES_MAX = 64;
const MESSAGES_AT = 64;
const IOVEC_AT = 40;

/** What a kernel can do beyond placing missing pages; bits of the handshake. */
export const FaultFeature = { WP_ASYNC: 1 << 15 } as const;

/** What is registered: faults on pages that are not there, or writes to those that are protected. */
export const FaultMode = { MISSING: 1, WRITE_PROTECT: 2 } as const;

/** Events that are read. */
export const FaultEvent = { PAGEFAULT: 0x12, FORK: 0x13, REMOVE: 0x15 } as const;

/** What a fault says that is not about a page that is absent. */
export const FaultFlag = { WRITE_PROTECTED: 2, MINOR: 4 } as const;

/** Who may touch absent pages: code of the process only, or system calls as well. */
type FaultScope = "user" | "all";

/** A descriptor whose handshake is done. Used by one thread; others make their own object over it. */
export class Userfaultfd implements Disposable {
  /** The descriptor. */
  readonly fd: number;
  readonly #arena = new Arena(MESSAGES_AT + MESSAGES_MAX * MESSAGE_BYTES);
  #hasNoWait = true;

  /** @param fd Belongs to whoever disposes the object. */
  constructor(fd: number) {
    this.fd = fd;
    this.#arena.setPointer(IOVEC_AT, this.#arena.address + MESSAGES_AT);
    this.#arena.setPointer(IOVEC_AT + 8, MESSAGES_MAX * MESSAGE_BYTES);
  }

  /**
   * Opens a descriptor, by the system call or by its device.
   *
   * @param scope `all`: system calls wait for absent pages as well, which takes privileges.
   * @param features Bits of {@linkcode FaultFeature} that the kernel must have.
   */
  static open(scope: FaultScope, features = 0): Userfaultfd | number {
    const fd = openDescriptor(scope);
    if (fd < 0) return fd;
    const userfaultfd = new Userfaultfd(fd);
    const arena = userfaultfd.#arena;
    arena.setPointer(0, API_VERSION);
    arena.setPointer(8, features);
    const status = ioctl(fd, UFFDIO_API, arena.address);
    if (status >= 0) return userfaultfd;
    userfaultfd[Symbol.dispose]();
    return status;
  }

  /** Watches a range of whole kernel pages; in `MISSING` none of them may be there yet. */
  register(address: number, bytes: number, mode: number): number {
    this.#range(address, bytes, mode);
    return this.#control(UFFDIO_REGISTER);
  }

  /** Watches a range no longer. Who waits in it goes on: absent pages are zero from now on. */
  unregister(address: number, bytes: number): number {
    this.#range(address, bytes, 0);
    return this.#control(UFFDIO_UNREGISTER);
  }

  /** Has those who wait in a range look again. */
  wake(address: number, bytes: number): number {
    this.#range(address, bytes, 0);
    return this.#control(UFFDIO_WAKE);
  }

  /**
   * Puts pages in place and wakes who waits for them.
   *
   * @returns The bytes placed, in front of a page that is there already if they are fewer; or
   * `-errno`, `-EEXIST` when the first page is there.
   */
  copy(to: number, from: number, bytes: number): number {
    const arena = this.#arena;
    arena.setPointer(0, to);
    arena.setPointer(8, from);
    arena.setPointer(16, bytes);
    arena.setPointer(24, 0);
    arena.setPointer(32, 0);
    return this.#placed(this.#control(UFFDIO_COPY), 32);
  }

  /** As {@linkcode copy}, of pages that are zero. */
  zero(to: number, bytes: number): number {
    this.#range(to, bytes, 0);
    this.#arena.setPointer(24, 0);
    return this.#placed(this.#control(UFFDIO_ZEROPAGE), 24);
  }

  /**
   * As {@linkcode copy}, of pages that nobody can have: touching one ends the process by SIGBUS.
   * `-EINVAL` on kernels before Linux 6.6.
   */
  poison(to: number, bytes: number): number {
    this.#range(to, bytes, 0);
    this.#arena.setPointer(24, 0);
    return this.#placed(this.#control(UFFDIO_POISON), 24);
  }

  /**
   * Reads what has happened; the number of events, 0 when nothing has. Never waits, `-EINVAL` where it
   * would. The descriptor that comes with a fork is closed: nobody serves the child.
   */
  read(): number {
    const bytes = this.#readAtOnce();
    if (bytes < 0) return bytes === -EAGAIN ? 0 : bytes;
    const { u8, view } = this.#arena;
    for (let at = MESSAGES_AT; at < MESSAGES_AT + bytes; at += MESSAGE_BYTES) {
      if (u8[at] === FaultEvent.FORK) close(view.getInt32(at + 8, true));
    }
    return bytes / MESSAGE_BYTES;
  }

  /** Kind of an event that was read, a {@linkcode FaultEvent}. */
  eventAt(index: number): number {
    return this.#arena.u8[MESSAGES_AT + index * MESSAGE_BYTES];
  }

  /** Bits of a fault, {@linkcode FaultFlag}. */
  flagsAt(index: number): number {
    return this.#arena.view.getUint32(MESSAGES_AT + index * MESSAGE_BYTES + 8, true);
  }

  /** Address of the fault, or where the range ends that was removed. */
  addressAt(index: number): number {
    return this.#arena.pointerAt(MESSAGES_AT + index * MESSAGE_BYTES + 16);
  }

  /** Where the range begins that was removed. */
  startAt(index: number): number {
    return this.#arena.pointerAt(MESSAGES_AT + index * MESSAGE_BYTES + 8);
  }

  /**
   * Closes the descriptor. The last one of it to be closed ends the watch, as
   * {@linkcode unregister} does.
   */
  [Symbol.dispose](): void {
    close(this.fd);
  }

  /** Whoever passed the descriptor can have it wait at any moment: its flags are not ours alone. */
  #readAtOnce(): number {
    const { fd } = this;
    const { address } = this.#arena;
    const number = PREADV2_NUMBERS[process.arch];
    if (this.#hasNoWait && number !== undefined) {
      const bytes = result(
        native().syscall(
          number,
          fd,
          address + IOVEC_AT,
          1,
          POSITION_NONE,
          POSITION_NONE,
          RWF_NOWAIT,
        ),
      );
      if (bytes !== -EOPNOTSUPP && bytes !== -ENOSYS) return bytes;
      this.#hasNoWait = false; // before Linux 6.10
    }
    const flags = fcntl(fd, FileControl.GETFL, 0);
    if (flags < 0 || (flags & OpenFlag.NONBLOCK) === 0) return -EINVAL;
    return readFd(fd, address + MESSAGES_AT, MESSAGES_MAX * MESSAGE_BYTES);
  }

  #range(address: number, bytes: number, mode: number): void {
    const arena = this.#arena;
    arena.setPointer(0, address);
    arena.setPointer(8, bytes);
    arena.setPointer(16, mode);
  }

  #control(request: number): number {
    return ioctl(this.fd, request, this.#arena.address);
  }

  /** A call that was interrupted half way says so, and how far it came, which is what counts. */
  #placed(status: number, at: number): number {
    const done = this.#arena.pointerAt(at);
    // A negative number of the kernel's is far beyond any length.
    const isCount = done > 0 && done < Number.MAX_SAFE_INTEGER;
    return isCount ? done : status;
  }
}

/** What the kernel lets this process have. */
interface FaultSupport {
  /** Undefined when it has nothing. */
  readonly scope: FaultScope | undefined;
  /** Why it has no more than that; undefined when it has all. */
  readonly reason: string | undefined;
}

/** Opens a descriptor with the widest scope there is; undefined when there is none. */
export function openUserfaultfd(): FaultSupport & { readonly userfaultfd?: Userfaultfd } {
  let reason: string | undefined;
  for (const scope of ["all", "user"] as const) {
    const userfaultfd = Userfaultfd.open(scope);
    if (typeof userfaultfd !== "number") return { scope, reason, userfaultfd };
    reason = refusal(scope, -userfaultfd);
  }
  return { scope: undefined, reason };
}

function refusal(scope: FaultScope, errno: number): string {
  const name = errnoName(errno);
  if (errno === ENOSYS) return `${name}: this kernel is built without userfaultfd`;
  if (errno !== EPERM) return name;
  return scope === "all"
    ? `${name}: needs CAP_SYS_PTRACE, vm.unprivileged_userfaultfd = 1 or access to ${DEVICE}`
    : `${name}: refused even for this process's own code, as the filters of containers do`;
}

function openDescriptor(scope: FaultScope): number {
  const number = SYSCALL_NUMBERS[process.arch];
  if (process.platform !== "linux" || number === undefined) return -ENOSYS;
  const flags = DESCRIPTOR_FLAGS | (scope === "user" ? USER_MODE_ONLY : 0);
  const fd = result(native().syscall(number, flags, 0, 0, 0, 0, 0));
  if (fd !== -EPERM) return fd;
  const device = openFile(DEVICE, OpenFlag.RDWR | OpenFlag.CLOEXEC);
  if (device < 0) return fd; // why the call itself was refused
  const made = ioctl(device, USERFAULTFD_IOC_NEW, flags);
  close(device);
  return made;
}
