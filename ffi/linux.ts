/**
 * Linux constants under their C names, grouped by the call that takes them. The values are those of
 * x86-64 and arm64, which agree on all but three.
 *
 * @module
 */
const isArm = process.arch === "arm64";

/** `socket()` domains. */
export const AddressFamily = { UNIX: 1, INET: 2, INET6: 10 } as const;

/** `socket()` and `accept4()` types and flags. */
export const SocketType = { STREAM: 1, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;

/** `setsockopt()` levels and options. */
export const SocketOption = {
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_ERROR: 4,
  SO_PEERCRED: 17,
  SO_RCVTIMEO: 20,
  SO_SNDTIMEO: 21,
  IPPROTO_TCP: 6,
  TCP_NODELAY: 1,
} as const;

/** `send*()` and `recv*()` flags. */
export const MessageFlag = {
  PEEK: 0x2,
  DONTWAIT: 0x40,
  WAITALL: 0x100,
  NOSIGNAL: 0x4000,
  /** Descriptors that come along are closed in programs that are started. */
  CMSG_CLOEXEC: 0x4000_0000,
} as const;

/** `shutdown()` directions. */
export const Shutdown = { READ: 0, WRITE: 1, BOTH: 2 } as const;

/** `poll()` events. */
export const PollEvent = { IN: 1, OUT: 4, ERR: 8, HUP: 16, RDHUP: 0x2000 } as const;

/** `open()` flags. */
export const OpenFlag = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NONBLOCK: 0o4000,
  DIRECT: isArm ? 0o200000 : 0o40000,
  DIRECTORY: isArm ? 0o40000 : 0o200000,
  NOFOLLOW: isArm ? 0o100000 : 0o400000,
  CLOEXEC: 0o2000000,
  /** A file without a name in the folder that is opened; together with O_DIRECTORY. */
  TMPFILE: 0o20000000,
} as const;

/** `flock()` operations. */
export const FileLock = { EXCLUSIVE: 2, NONBLOCK: 4 } as const;

/** `linkat()`: relative to the working folder, and of what a link leads to. */
export const LinkAt = { CWD: -100, FOLLOW: 0x400 } as const;

/** `statx()`: relative to the working folder, and of the descriptor itself. */
export const StatxFlag = { CWD: -100, EMPTY_PATH: 0x1000 } as const;

/** `lseek()` origins. */
export const SeekFrom = { END: 2, DATA: 3, HOLE: 4 } as const;

/** `mmap()` protections and flags. */
export const MemoryMap = {
  PROT_NONE: 0,
  PROT_READ: 1,
  PROT_WRITE: 2,
  SHARED: 1,
  PRIVATE: 2,
  ANONYMOUS: 0x20,
  /** Memory that is never touched counts nowhere. */
  NORESERVE: 0x4000,
} as const;

/** `madvise()` advice. */
export const MemoryAdvice = { HUGEPAGE: 14, POPULATE_READ: 22, POPULATE_WRITE: 23 } as const;

/** `fcntl()` commands. */
export const FileControl = { GETFL: 3, SETFL: 4, DUPFD_CLOEXEC: 1030 } as const;

/** Most `iovec` entries one call takes. */
export const IOV_MAX = 1024;
