/**
 * What a path or a descriptor leads to. Asked of the kernel itself: a runtime may know nothing of
 * descriptors that it has not opened.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, statx, unwrap } from "../../ffi/libc.ts";
import { StatxFlag } from "../../ffi/linux.ts";

/** Facts of a file. */
export interface FileFacts {
  /** What it is, as messages say it. */
  readonly kind: string;
  readonly isRegular: boolean;
  readonly isDirectory: boolean;
  readonly isBlockDevice: boolean;
  readonly isPipe: boolean;
  /** Names that lead to it. */
  readonly links: number;
  /** Bytes that it takes on its device. */
  readonly diskBytes: number;
}

/*
 * struct statx, in the byte order of the machine:
 *   16  u32 links    28  u16 type and permissions    48  u64 blocks of 512 bytes
 */
const STATX_BYTES = 256;
const LINKS_AT = 16;
const MODE_AT = 28;
const BLOCKS_AT = 48;

const TYPE_MASK = 0o170000;
const REGULAR = 0o100000;
const BLOCK_DEVICE = 0o060000;
const DIRECTORY = 0o040000;
const PIPE = 0o010000;
const KINDS = new Map([
  [REGULAR, "a regular file"],
  [BLOCK_DEVICE, "a block device"],
  [PIPE, "a pipe"],
  [DIRECTORY, "a directory"],
  [0o140000, "a socket"],
]);

/**
 * Facts of an open file.
 *
 * @param action What the caller does, for messages.
 * @throws {SystemError} when `fd` is no open descriptor.
 */
export function factsOfDescriptor(action: string, fd: number): FileFacts {
  const facts = new Arena(STATX_BYTES);
  unwrap(action, statx(fd, "", StatxFlag.EMPTY_PATH, facts.address));
  return decode(facts.view);
}

/**
 * Facts of what a path leads to, links followed.
 *
 * @param action What the caller does, for messages.
 * @returns Undefined when there is nothing.
 * @throws {SystemError} when that cannot be found out.
 */
export function factsOfPath(action: string, path: string): FileFacts | undefined {
  const facts = new Arena(STATX_BYTES);
  const status = statx(StatxFlag.CWD, path, 0, facts.address);
  if (status === -Errno.ENOENT) return undefined;
  unwrap(action, status);
  return decode(facts.view);
}

function decode(view: DataView): FileFacts {
  const type = view.getUint16(MODE_AT, true) & TYPE_MASK;
  return {
    kind: KINDS.get(type) ?? "a character device",
    isRegular: type === REGULAR,
    isDirectory: type === DIRECTORY,
    isBlockDevice: type === BLOCK_DEVICE,
    isPipe: type === PIPE,
    links: view.getUint32(LINKS_AT, true),
    diskBytes: Number(view.getBigUint64(BLOCKS_AT, true)) * 512,
  };
}
