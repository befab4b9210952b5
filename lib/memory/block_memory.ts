/**
 * The memory of a RAM block: pieces that hold still, who owns them, and what the kernel is told about
 * them. What the bytes mean is the block's business.
 *
 * @module
 */
import { addressOf, allocateShared } from "../../ffi/arena.ts";
import { errnoName, madvise, mmap, munmap, unwrap } from "../../ffi/libc.ts";
import { MemoryAdvice, MemoryMap } from "../../ffi/linux.ts";
import { BUFFER_BYTES_MAX, SEGMENT_BYTES } from "../limits.ts";
import type { FilePlace, OpenedFile } from "../storage/opened_file.ts";
import type { Residency } from "./residency.ts";

/** A contiguous piece of a block's memory. */
export interface Segment {
  /** Address of the first byte, valid while the block lives. */
  readonly address: number;
  /** Length in bytes, a multiple of the page size. */
  readonly bytes: number;
  /** The memory itself, absent when it is mapped and not a JavaScript buffer. */
  readonly buffer: SharedArrayBuffer | undefined;
}

/** See the module comment. */
export class BlockMemory {
  /** The pieces, in ascending order. */
  readonly segments: readonly Segment[];
  /** Length of all pieces, in bytes. */
  readonly bytes: number;
  /** Whether it can be written to. */
  readonly writable: boolean;
  /** Whether it is known to hold nothing but zeros. */
  zeroed: boolean;
  /** Where a sender reads it; undefined when it reads the pieces. */
  readonly file: FilePlace | undefined;
  /** Whether its pages are there; undefined when they are, or come in by themselves. */
  readonly residency: Residency | undefined;
  #unmap: (() => void) | undefined;
  #owners = 1;

  private constructor(
    segments: readonly Segment[],
    zeroed: boolean,
    writable = true,
    unmap?: () => void,
    file?: FilePlace,
    residency?: Residency,
  ) {
    this.segments = segments;
    this.bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
    this.zeroed = zeroed;
    this.writable = writable;
    this.#unmap = unmap;
    this.file = file;
    this.residency = residency;
  }

  /**
   * Allocates zeroed memory in pieces of a power of two.
   *
   * @throws {SystemError} with errno `ENOMEM` when there is not so much memory.
   */
  static allocate(bytes: number, what: string): BlockMemory {
    const segments: Segment[] = [];
    for (let left = bytes; left > 0; left -= SEGMENT_BYTES) {
      segments.push(segmentOf(allocateShared(Math.min(left, SEGMENT_BYTES), what)));
    }
    return new BlockMemory(segments, true);
  }

  /** Memory that consists of the caller's buffers. */
  static of(buffers: readonly SharedArrayBuffer[], zeroed: boolean): BlockMemory {
    return new BlockMemory(buffers.map(segmentOf), zeroed);
  }

  /** Memory that another thread owns and keeps alive. */
  static attach(
    segments: readonly Segment[],
    zeroed: boolean,
    file?: FilePlace,
    residency?: Residency,
  ): BlockMemory {
    return new BlockMemory(segments, zeroed, true, undefined, file, residency);
  }

  /** Memory that somebody has mapped and fills; `release` is called when its last owner lets go. */
  static filled({ address, bytes, writable, residency, release }: FilledMemory): BlockMemory {
    const segments = [{ address, bytes, buffer: undefined }];
    return new BlockMemory(segments, false, writable, release, undefined, residency);
  }

  /**
   * Maps `bytes` bytes at `offset` of a file, which must have as many.
   *
   * @throws {SystemError} when the kernel refuses.
   */
  static map(
    file: OpenedFile,
    { offset, bytes, writable, zeroed, readBySender }: MappedRange,
    action: string,
  ): BlockMemory {
    const prot = MemoryMap.PROT_READ | (writable ? MemoryMap.PROT_WRITE : 0);
    const address = unwrap(action, mmap(bytes, prot, MemoryMap.SHARED, file.fd, offset));
    const segments = [{ address, bytes, buffer: undefined }];
    const unmap = (): void => void munmap(address, bytes);
    if (!readBySender) return new BlockMemory(segments, zeroed, writable, unmap);
    try {
      // Of its own: the number of one that was closed is soon that of another file.
      const own = file.duplicate();
      const release = (): void => {
        unmap();
        own[Symbol.dispose]();
      };
      return new BlockMemory(segments, zeroed, writable, release, { fd: own.fd, offset });
    } catch (error) {
      unmap();
      throw error;
    }
  }

  /** Asks for huge pages; small or unaligned memory and kernels without them are no failure. */
  adviseHugePages(): void {
    for (const { address, bytes } of this.segments) {
      if (address % 4096 === 0) madvise(address, bytes, MemoryAdvice.HUGEPAGE);
    }
  }

  /**
   * Touches all of it, for writing or only for reading.
   *
   * @returns The name of the error if the kernel refuses.
   */
  prefault(forWriting: boolean): string | undefined {
    const advice = forWriting ? MemoryAdvice.POPULATE_WRITE : MemoryAdvice.POPULATE_READ;
    for (const { address, bytes } of this.segments) {
      const start = Math.ceil(address / 4096) * 4096;
      const whole = Math.floor((address + bytes - start) / 4096) * 4096;
      if (whole <= 0) continue;
      const status = madvise(start, whole, advice);
      if (status < 0) return errnoName(-status);
    }
    return undefined;
  }

  /** Adds an owner, who calls {@linkcode release} once. */
  retain(): void {
    this.#owners++;
  }

  /**
   * An owner lets go. The last one unmaps mapped memory; other memory is freed when nobody refers to
   * it.
   */
  release(): void {
    if (--this.#owners === 0) this.#unmap?.();
  }
}

/** Memory whose pages come in later. */
export interface FilledMemory {
  readonly address: number;
  readonly bytes: number;
  readonly writable: boolean;
  readonly residency: Residency;
  /** Unmaps it, when nobody works on it any more. */
  release(this: void): void;
}

/** What of a file to map. */
interface MappedRange {
  readonly offset: number;
  readonly bytes: number;
  readonly writable: boolean;
  readonly zeroed: boolean;
  readonly readBySender: boolean;
}

/** @throws {RangeError} unless every page of `pageSize` bytes lies in one piece. */
export function checkSegments(idstr: string, segments: readonly Segment[], pageSize: number): void {
  const first = segments[0].bytes;
  // Else a page would lie in two pieces, and only the address of the first is ever asked for.
  if (segments.some(({ bytes }) => bytes % pageSize !== 0)) {
    throw new RangeError(
      `Cannot make RAM block ${idstr}: every buffer must be a multiple of the page size ${pageSize}`,
    );
  }
  if (segments.length === 1) return;
  const uniform = segments.every(({ bytes }, index) =>
    index < segments.length - 1 ? bytes === first : bytes <= first,
  );
  if (!uniform || !Number.isInteger(Math.log2(first)) || first > BUFFER_BYTES_MAX) {
    throw new RangeError(
      `Cannot make RAM block ${idstr}: all buffers but the last must have the same power-of-two length`,
    );
  }
}

function segmentOf(buffer: SharedArrayBuffer): Segment {
  return { address: addressOf(buffer), bytes: buffer.byteLength, buffer };
}
