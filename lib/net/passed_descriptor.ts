/**
 * Descriptors that another process passes over a Unix socket, and which process that is.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, getsockopt, recvmsg } from "../../ffi/libc.ts";
import { MessageFlag, SocketOption } from "../../ffi/linux.ts";

/*
 * struct msghdr                                        struct cmsghdr
 *    0 name *      8 u32 bytes of name                    0 u64 bytes, this header included
 *   16 iovec *    24 u64 iovecs                           8 i32 level 1    12 i32 type 1 (rights)
 *   32 control *  40 u64 bytes of control                16 i32 descriptors
 *   48 i32 flags
 */
const MESSAGE_AT = 0;
const IOVEC_AT = 64;
const CREDENTIALS_AT = 80; // pid, uid, gid
const LENGTH_AT = 96;
const CONTROL_AT = 128;
const CONTROL_BYTES = 128;
const CONTROL_HEADER_BYTES = 16;
const SCM_RIGHTS = 1;

/** What came. */
interface PassedMessage {
  /** Bytes, 0 at the end of the stream, or `-errno`. */
  readonly bytes: number;
  /** Belong to the caller. */
  readonly descriptors: readonly number[];
}

let structs: Arena | undefined;

/** Receives some bytes to `address` without waiting, and the descriptors that come along. */
export function receivePassed(fd: number, address: number, bytesMax: number): PassedMessage {
  const arena = (structs ??= new Arena(CONTROL_AT + CONTROL_BYTES));
  const { view } = arena;
  arena.u8.fill(0);
  arena.setPointer(IOVEC_AT, address);
  arena.setPointer(IOVEC_AT + 8, bytesMax);
  arena.setPointer(MESSAGE_AT + 16, arena.address + IOVEC_AT);
  arena.setPointer(MESSAGE_AT + 24, 1);
  arena.setPointer(MESSAGE_AT + 32, arena.address + CONTROL_AT);
  arena.setPointer(MESSAGE_AT + 40, CONTROL_BYTES);
  const flags = MessageFlag.DONTWAIT | MessageFlag.CMSG_CLOEXEC;
  const bytes = recvmsg(fd, arena.address + MESSAGE_AT, flags);
  const descriptors: number[] = [];
  const end = bytes < 0 ? 0 : arena.pointerAt(MESSAGE_AT + 40);
  for (let at = 0; at + CONTROL_HEADER_BYTES <= end;) {
    const header = CONTROL_AT + at;
    const length = arena.pointerAt(header);
    if (length < CONTROL_HEADER_BYTES) break;
    const isRights =
      view.getInt32(header + 8, true) === SocketOption.SOL_SOCKET &&
      view.getInt32(header + 12, true) === SCM_RIGHTS;
    const stop = isRights ? length : 0;
    for (let one = CONTROL_HEADER_BYTES; one + 4 <= stop; one += 4) {
      descriptors.push(view.getInt32(header + one, true));
    }
    at += Math.ceil(length / 8) * 8;
  }
  return { bytes, descriptors };
}

/** The number of the process that has connected; 0 when it cannot be told. */
export function peerProcess(fd: number): number {
  const arena = (structs ??= new Arena(CONTROL_AT + CONTROL_BYTES));
  arena.view.setUint32(LENGTH_AT, 12, true);
  const at = arena.address + CREDENTIALS_AT;
  const status = getsockopt(
    fd,
    SocketOption.SOL_SOCKET,
    SocketOption.SO_PEERCRED,
    at,
    arena.address + LENGTH_AT,
  );
  return status < 0 ? 0 : arena.view.getInt32(CREDENTIALS_AT, true);
}

/** Closes descriptors that nobody wants. */
export function closePassed(descriptors: readonly number[]): void {
  for (const fd of descriptors) close(fd);
}
