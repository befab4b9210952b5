/**
 * Memory for native structs. A typed array made by length may move when the code using it is
 * optimised, so every struct and every buffer that C sees lives in a SharedArrayBuffer, whose
 * address is fixed for its whole life and equal in all threads.
 *
 * @module
 */
import { addressOfView, viewOfAddress } from "./runtime/runtime.ts";
import { SystemError } from "./errors.ts";

/**
 * Allocates zeroed shared memory; pages that are never touched take none.
 *
 * @param what Whose it is, for the message.
 * @throws {SystemError} with errno `ENOMEM` when there is not so much.
 */
export function allocateShared(bytes: number, what: string): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(bytes);
  } catch (cause) {
    const message = `Cannot allocate ${what}: there is no memory for ${bytes} bytes`;
    throw new SystemError(message, { errno: "ENOMEM", cause });
  }
}

/**
 * Address of the first byte of `buffer`. The caller must keep `buffer` reachable for as long as the
 * address is in use; the collector does not see addresses.
 */
export function addressOf(buffer: SharedArrayBuffer): number {
  if (buffer.byteLength === 0) {
    throw new RangeError("Cannot take an address: the buffer is empty, at least 1 byte is needed");
  }
  return addressOfView(new Uint8Array(buffer));
}

/**
 * A view over memory that this process has mapped or shares, without a copy and without ownership:
 * whoever mapped it must keep it mapped while the view is in use.
 */
export function viewOfMemory(address: number, bytes: number): Uint8Array {
  if (!(address > 0) || !(bytes > 0)) {
    throw new RangeError(
      `Cannot view memory: address ${address} and length ${bytes} must be positive`,
    );
  }
  return new Uint8Array(viewOfAddress(address, 0, bytes));
}

/** One fixed block of native memory, handed out front to back and never returned piecewise. */
export class Arena {
  /** Owner of the memory; alive as long as the arena is. */
  readonly buffer: SharedArrayBuffer;
  /** Address of byte 0. */
  readonly address: number;
  /** The whole arena as bytes. */
  readonly u8: Uint8Array;
  /** The whole arena as 32-bit words in host order, for struct fields. */
  readonly u32: Uint32Array;
  /** The whole arena for access at any alignment and byte order. */
  readonly view: DataView;
  #used = 0;

  constructor(bytes: number) {
    // Whole pages: a small SharedArrayBuffer is not page aligned, and codecs like aligned buffers.
    this.buffer = allocateShared(Math.ceil(bytes / 4096) * 4096, "buffers");
    this.address = addressOf(this.buffer);
    this.u8 = new Uint8Array(this.buffer);
    this.u32 = new Uint32Array(this.buffer);
    this.view = new DataView(this.buffer);
  }

  /**
   * Reserves `bytes` and returns their offset in the arena.
   *
   * @throws {RangeError} when the arena is full: its size is a mistake of the caller.
   */
  reserve(bytes: number, alignment = 64): number {
    const offset = Math.ceil(this.#used / alignment) * alignment;
    if (offset + bytes > this.buffer.byteLength) {
      throw new RangeError(
        `Cannot reserve ${bytes} bytes: ${this.buffer.byteLength - offset} are left in the arena`,
      );
    }
    this.#used = offset + bytes;
    return offset;
  }

  /** Writes a pointer-sized word (64 bits, host order) at `offset`. */
  setPointer(offset: number, value: number): void {
    this.u32[offset >>> 2] = value >>> 0;
    this.u32[(offset >>> 2) + 1] = Math.floor(value / 0x1_0000_0000);
  }

  /** Reads a pointer-sized word (64 bits, host order) that is known to be a safe integer. */
  pointerAt(offset: number): number {
    const word = offset >>> 2;
    return (this.u32[word] ?? 0) + (this.u32[word + 1] ?? 0) * 0x1_0000_0000;
  }
}
