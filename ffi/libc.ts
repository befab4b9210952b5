/**
 * The C library: sockets, files, mapped memory, and the three memory primitives of the page path.
 *
 * Every wrapper that can fail returns the result or `-errno`, as Linux itself does, because nothing
 * may run between the failing call and the reading of errno. Callers that have no use for the
 * number go through {@linkcode unwrap}.
 *
 * @module
 */
import { NativeType, readNative } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { SystemError, type ErrorContext } from "./errors.ts";
import { LinkAt } from "./linux.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where libc is looked for. */
export const LIBC: LibrarySource = {
  name: "libc",
  sonames: ["libc.so.6"],
  override: "MULTIFD_LIBC",
  debianPackage: "libc6",
};

const ADDRESS = NativeType.ptr; // any pointer, passed as a number: the fastest form in Bun 1.4
const INT = NativeType.i32;
const SIZE = NativeType.u64_fast; // size_t and off_t below 2^53
const SSIZE = NativeType.i64_fast; // ssize_t or off_t; -1 on failure

const CLOCK_MONOTONIC = 1;
const MFD_CLOEXEC = 1;
const STATX_BASIC = 0x7ff; // what stat() tells
const TIMESPEC_BYTES = 16; // i64 seconds, i64 nanoseconds
let timespec: Arena | undefined;

const SYMBOLS = {
  __errno_location: { args: [], returns: ADDRESS }, // int * of the calling thread
  socket: { args: [INT, INT, INT], returns: INT }, // domain, type, protocol
  socketpair: { args: [INT, INT, INT, ADDRESS], returns: INT }, // domain, type, protocol, int[2]
  bind: { args: [INT, ADDRESS, INT], returns: INT }, // sockfd, sockaddr *, addrlen
  listen: { args: [INT, INT], returns: INT }, // sockfd, backlog
  accept4: { args: [INT, ADDRESS, ADDRESS, INT], returns: INT }, // sockfd, sockaddr *, socklen_t *, flags
  connect: { args: [INT, ADDRESS, INT], returns: INT }, // sockfd, sockaddr *, addrlen
  getsockname: { args: [INT, ADDRESS, ADDRESS], returns: INT }, // sockfd, sockaddr *, socklen_t *
  setsockopt: { args: [INT, INT, INT, ADDRESS, INT], returns: INT }, // sockfd, level, optname, optval *, optlen
  getsockopt: { args: [INT, INT, INT, ADDRESS, ADDRESS], returns: INT }, // …, optval *, socklen_t *
  shutdown: { args: [INT, INT], returns: INT }, // sockfd, how
  poll: { args: [ADDRESS, SIZE, INT], returns: INT }, // pollfd *, nfds, timeout in ms; ready descriptors
  sendmsg: { args: [INT, ADDRESS, INT], returns: SSIZE }, // sockfd, msghdr *, flags; bytes sent
  recvmsg: { args: [INT, ADDRESS, INT], returns: SSIZE }, // sockfd, msghdr *, flags; bytes, 0 at end
  send: { args: [INT, ADDRESS, SIZE, INT], returns: SSIZE }, // sockfd, buf, len, flags
  recv: { args: [INT, ADDRESS, SIZE, INT], returns: SSIZE }, // sockfd, buf, len, flags
  open: { args: [NativeType.cstring, INT, INT], returns: INT }, // pathname, flags, mode
  close: { args: [INT], returns: INT },
  fcntl: { args: [INT, INT, INT], returns: INT }, // fd, cmd, arg
  lseek: { args: [INT, SSIZE, INT], returns: SSIZE }, // fd, offset, whence
  ftruncate: { args: [INT, SIZE], returns: INT }, // fd, length
  fsync: { args: [INT], returns: INT },
  memfd_create: { args: [NativeType.cstring, INT], returns: INT }, // name, flags
  statx: { args: [INT, NativeType.cstring, INT, INT, ADDRESS], returns: INT }, // dirfd, pathname, flags, mask, statx *
  flock: { args: [INT, INT], returns: INT }, // fd, operation
  linkat: { args: [INT, NativeType.cstring, INT, NativeType.cstring, INT], returns: INT }, // olddirfd, oldpath, newdirfd, newpath, flags
  read: { args: [INT, ADDRESS, SIZE], returns: SSIZE }, // fd, buf, count
  write: { args: [INT, ADDRESS, SIZE], returns: SSIZE }, // fd, buf, count
  pread: { args: [INT, ADDRESS, SIZE, SIZE], returns: SSIZE }, // fd, buf, count, offset
  pwrite: { args: [INT, ADDRESS, SIZE, SIZE], returns: SSIZE }, // fd, buf, count, offset
  sched_yield: { args: [], returns: INT },
  clock_gettime: { args: [INT, ADDRESS], returns: INT }, // clock, timespec *
  mmap: { args: [ADDRESS, SIZE, INT, INT, INT, SIZE], returns: SSIZE }, // addr, length, prot, flags, fd, offset
  munmap: { args: [ADDRESS, SIZE], returns: INT },
  mprotect: { args: [ADDRESS, SIZE, INT], returns: INT }, // addr, length, prot
  madvise: { args: [ADDRESS, SIZE, INT], returns: INT }, // addr, length, advice
  memcmp: { args: [ADDRESS, ADDRESS, SIZE], returns: INT },
  memcpy: { args: [ADDRESS, ADDRESS, SIZE], returns: NativeType.void },
  memset: { args: [ADDRESS, INT, SIZE], returns: NativeType.void },
  gnu_get_libc_version: { args: [], returns: NativeType.cstring },
} as const;

type Libc = ReturnType<typeof open>;
type Address = Parameters<Libc["memset"]>[0];

const open = () => openLibrary(LIBC, SYMBOLS);
let opened: Libc | undefined;
let errnoAddress = 0 as unknown as Parameters<typeof readNative.i32>[0]; // per thread, as this module is

function libc(): Libc {
  if (opened === undefined) {
    opened = open();
    errnoAddress = opened.__errno_location() as typeof errnoAddress;
  }
  return opened;
}

/** Turns C's -1 into `-errno`; must directly follow the call. */
function result(value: number | bigint): number {
  return value === -1 ? -readNative.i32(errnoAddress, 0) : (value as number);
}

let errnoNames: ReadonlyMap<number, string> | undefined;

/** Linux numbers of the errors that callers decide on. */
export const Errno = {
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  ENXIO: 6,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EEXIST: 17,
  ENFILE: 23,
  EMFILE: 24,
  EINVAL: 22,
  EPIPE: 32,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ECONNREFUSED: 111,
  EINPROGRESS: 115,
} as const;

/** Name of an errno number, for example `ECONNRESET` for 104. */
export function errnoName(errno: number): string {
  // Loaded with the first error: a thread that sees none starts without the module.
  errnoNames ??= new Map(
    Object.entries(process.getBuiltinModule("node:os").constants.errno).map(([name, code]) => [
      code,
      name,
    ]),
  );
  return errnoNames.get(errno) ?? `errno ${errno}`;
}

/**
 * Returns `value` when it is a result.
 *
 * @throws {SystemError} when `value` is `-errno`; the message starts with `action`.
 */
export function unwrap(action: string, value: number, context: ErrorContext = {}): number {
  if (value >= 0) return value;
  const name = errnoName(-value);
  throw new SystemError(`${action}: ${name}`, { ...context, errno: name });
}

/** Version text of the running C library. */
export function libcVersion(): string {
  return String(libc().gnu_get_libc_version());
}

/** Opens a socket; a descriptor or `-errno`. */
export function socket(domain: number, type: number, protocol: number): number {
  return result(libc().socket(domain, type, protocol));
}

/** Makes two connected sockets; their descriptors are written to the two ints at `address`. */
export function socketpair(
  domain: number,
  type: number,
  protocol: number,
  address: number,
): number {
  return result(libc().socketpair(domain, type, protocol, address as Address));
}

/** Binds `fd` to the `sockaddr` at `address`. */
export function bind(fd: number, address: number, bytes: number): number {
  return result(libc().bind(fd, address as Address, bytes));
}

/** Makes `fd` a listening socket. */
export function listen(fd: number, backlog: number): number {
  return result(libc().listen(fd, backlog));
}

/** Accepts a connection with `flags` such as `SOCK_CLOEXEC`; a descriptor or `-errno`. */
export function accept(fd: number, address: number, lengthAddress: number, flags: number): number {
  return result(libc().accept4(fd, address as Address, lengthAddress as Address, flags));
}

/** Connects `fd` to the `sockaddr` at `address`. */
export function connect(fd: number, address: number, bytes: number): number {
  return result(libc().connect(fd, address as Address, bytes));
}

/** Writes the bound address of `fd` to `address`. */
export function getsockname(fd: number, address: number, lengthAddress: number): number {
  return result(libc().getsockname(fd, address as Address, lengthAddress as Address));
}

/** Sets a socket option from `bytes` bytes at `address`. */
export function setsockopt(
  fd: number,
  level: number,
  option: number,
  address: number,
  bytes: number,
): number {
  return result(libc().setsockopt(fd, level, option, address as Address, bytes));
}

/** Reads a socket option into `address`; the length is at `lengthAddress`. */
export function getsockopt(
  fd: number,
  level: number,
  option: number,
  address: number,
  lengthAddress: number,
): number {
  return result(libc().getsockopt(fd, level, option, address as Address, lengthAddress as Address));
}

/** Ends a connection and wakes every thread blocked on it, which `close` does not. */
export function shutdown(fd: number, how: number): number {
  return result(libc().shutdown(fd, how));
}

/** Waits for events on `count` `pollfd` structs; the number of ready ones. */
export function poll(address: number, count: number, timeoutMs: number): number {
  return result(libc().poll(address as Address, count, timeoutMs));
}

/** Gather-writes the `msghdr` at `message`; bytes taken by the kernel. */
export function sendmsg(fd: number, message: number, flags: number): number {
  return result(libc().sendmsg(fd, message as Address, flags));
}

/** Scatter-reads into the `msghdr` at `message`; bytes, 0 at end of stream. */
export function recvmsg(fd: number, message: number, flags: number): number {
  return result(libc().recvmsg(fd, message as Address, flags));
}

/** Sends `bytes` bytes at `address`. */
export function send(fd: number, address: number, bytes: number, flags: number): number {
  return result(libc().send(fd, address as Address, bytes, flags));
}

/** Receives up to `bytes` bytes to `address`; 0 at end of stream. */
export function recv(fd: number, address: number, bytes: number, flags: number): number {
  return result(libc().recv(fd, address as Address, bytes, flags));
}

/** Opens a file; a descriptor or `-errno`. */
export function openFile(path: string, flags: number, mode = 0o600): number {
  if (endsEarly(path)) return -Errno.EINVAL;
  return result(libc().open(path, flags, mode));
}

/** Closes a descriptor. */
export function close(fd: number): number {
  return result(libc().close(fd));
}

/** `fcntl` with an integer argument. */
export function fcntl(fd: number, command: number, argument: number): number {
  return result(libc().fcntl(fd, command, argument));
}

/** Moves the position of `fd`, or finds data and holes in a sparse file. */
export function lseek(fd: number, offset: number, whence: number): number {
  return result(libc().lseek(fd, offset, whence));
}

/** Lets another thread run that waits for this processor; returns at once when there is none. */
export function yieldProcessor(): void {
  libc().sched_yield();
}

/** The machine's clock in milliseconds, one for all threads and never set back. */
export function monotonicMs(): number {
  timespec ??= new Arena(TIMESPEC_BYTES);
  libc().clock_gettime(CLOCK_MONOTONIC, timespec.address as Address);
  const { u32 } = timespec;
  return (u32[1] * 0x1_0000_0000 + u32[0]) * 1000 + u32[2] / 1e6;
}

/** Sets the length of a file. */
export function ftruncate(fd: number, bytes: number): number {
  return result(libc().ftruncate(fd, bytes));
}

/** `memfd_create()`: a file that is in memory only, its descriptor not for programs that are started. */
export function makeMemoryFile(name: string): number {
  return result(libc().memfd_create(name, MFD_CLOEXEC));
}

/** Waits until a file's data is on its device. */
export function fsync(fd: number): number {
  return result(libc().fsync(fd));
}

/** Writes what is known of a file, at `path` in `folder` or the descriptor itself, to `address`. */
export function statx(folder: number, path: string, flags: number, address: number): number {
  if (endsEarly(path)) return -Errno.EINVAL;
  return result(libc().statx(folder, path, flags, STATX_BASIC, address as Address));
}

/** Locks an open file against others that lock it, whichever process has them open. */
export function flock(fd: number, operation: number): number {
  for (;;) {
    const status = result(libc().flock(fd, operation));
    if (status !== -Errno.EINTR) return status;
  }
}

/** Gives the file that `from` leads to another name. */
export function linkat(from: string, to: string): number {
  if (endsEarly(from) || endsEarly(to)) return -Errno.EINVAL;
  return result(libc().linkat(LinkAt.CWD, from, LinkAt.CWD, to, LinkAt.FOLLOW));
}

/** Whether C would take a path for another one: it ends at the first NUL there. */
function endsEarly(path: string): boolean {
  return path.includes("\0");
}

/** Reads from any descriptor at its current position; 0 at end. */
export function readFd(fd: number, address: number, bytes: number): number {
  return result(libc().read(fd, address as Address, bytes));
}

/** Writes to any descriptor at its current position. */
export function writeFd(fd: number, address: number, bytes: number): number {
  return result(libc().write(fd, address as Address, bytes));
}

/** Positioned read; 0 at end of file. */
export function pread(fd: number, address: number, bytes: number, offset: number): number {
  return result(libc().pread(fd, address as Address, bytes, offset));
}

/** Positioned write. */
export function pwrite(fd: number, address: number, bytes: number, offset: number): number {
  return result(libc().pwrite(fd, address as Address, bytes, offset));
}

/** Maps memory; its address or `-errno`. Whoever maps must unmap after the last user is gone. */
export function mmap(
  bytes: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
): number {
  return result(libc().mmap(0 as unknown as Address, bytes, prot, flags, fd, offset));
}

/** Unmaps memory; nobody may hold an address inside it any more. */
export function munmap(address: number, bytes: number): number {
  return result(libc().munmap(address as Address, bytes));
}

/** Changes what may be done with mapped memory, of whole pages. */
export function mprotect(address: number, bytes: number, prot: number): number {
  return result(libc().mprotect(address as Address, bytes, prot));
}

/** Gives the kernel advice on a page-aligned range. */
export function madvise(address: number, bytes: number, advice: number): number {
  return result(libc().madvise(address as Address, bytes, advice));
}

/**
 * Whether the `bytes` bytes at `address` are all zero. One byte is compared with the next all the
 * way through, so only the page itself is read; this is as fast as a vectorised scan of our own.
 */
export function isZero(address: number, bytes: number): boolean {
  return (
    libc().memcmp(address as Address, (address + 1) as Address, bytes - 1) === 0 &&
    readNative.u8(address, 0) === 0
  );
}

let touched = 0; // what is never used may never be read

/** Reads a byte, for the sake of what that brings about. */
export function touchMemory(address: number): void {
  touched ^= readNative.u8(address, 0);
}

/** Whether two ranges hold the same bytes. */
export function isEqual(left: number, right: number, bytes: number): boolean {
  return libc().memcmp(left as Address, right as Address, bytes) === 0;
}

/** Copies between ranges that do not overlap. */
export function copyMemory(to: number, from: number, bytes: number): void {
  libc().memcpy(to as Address, from as Address, bytes);
}

/** Fills a range with zeros. */
export function clearMemory(address: number, bytes: number): void {
  libc().memset(address as Address, 0, bytes);
}
