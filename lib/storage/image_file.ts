/**
 * Memory images in files: one block's memory from its first byte to its last. Loading skips holes and
 * saving makes them, because a guest's image is mostly zero and neither time nor disk should be spent
 * on that.
 *
 * Reads and writes are positioned and several are under way at once, on the runtime's own threads, so
 * the caller's event loop stays free.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { Errno, lseek } from "../../ffi/libc.ts";
import { SeekFrom } from "../../ffi/linux.ts";
import { readDescriptor } from "../../ffi/runtime/runtime.ts";
import type { MultifdError } from "../errors.ts";
import { IMAGE_CHUNK_BYTES, IMAGE_CHUNKS_MAX } from "../limits.ts";
import { replaceFile, throwIfAborted } from "./file_replacement.ts";
import {
  imageError,
  openRegularFile,
  readFrom,
  type FilePlace,
  type OpenedFile,
} from "./opened_file.ts";
import type { OutputFile } from "./output_file.ts";
import { system } from "./system_failure.ts";

/** What loading and saving need of a block. */
interface ImageMemory {
  /** Length in bytes. */
  readonly bytes: number;
  /** Page size in bytes, the granularity of holes. */
  readonly pageSize: number;
  /** Length of every contiguous piece but the last, in bytes. */
  readonly segmentBytes: number;
  /** The memory from `offset`, inside one piece. */
  view(offset: number, bytes: number): Uint8Array;
  /** Where the memory is read instead, since it is a mapping that may become shorter. */
  readonly file?: FilePlace | undefined;
}

/** A range of a file, in bytes. */
interface Extent {
  readonly start: number;
  readonly end: number;
}

/** An image opened for reading. Disposing closes it. */
export class ImageReader implements Disposable {
  /** Length of the image in bytes. */
  readonly bytes: number;
  readonly #file: OpenedFile;

  /**
   * Opens a regular file or a block device.
   *
   * @throws {SystemError} when it cannot be opened.
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` for a directory, pipe or the like.
   */
  constructor(path: string) {
    this.#file = openRegularFile(`Cannot load ${path}`, path);
    this.bytes = this.#file.length();
  }

  /**
   * Fills `memory`, which is as long as the image and all zero.
   *
   * @throws {SystemError} when reading fails.
   * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when the file became shorter meanwhile.
   * @throws {CancelledError} when `signal` is aborted.
   */
  async load(memory: ImageMemory, signal?: AbortSignal): Promise<void> {
    const action = `Cannot load ${this.#file.path}`;
    await inParallel(this.#chunks(memory), action, signal, async ({ start, end }) => {
      const view = memory.view(start, end - start);
      for (let within = 0; within < view.byteLength;) {
        const rest = within === 0 ? view : view.subarray(within);
        const read = readDescriptor(this.#file.fd, rest, start + within);
        const bytesRead = await system(action, read);
        if (bytesRead === 0) throw this.#shortened(action);
        within += bytesRead;
      }
    });
    // What was cut off looks like a hole, which is not read.
    if (this.#file.length() < memory.bytes) throw this.#shortened(action);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }

  #shortened(action: string): MultifdError {
    return imageError(
      `${action}: it ends at byte ${this.#file.length()} now, must keep its ${this.bytes} bytes while it is read`,
    );
  }

  /** Everything but holes, cut at chunk and segment borders. */
  *#chunks(memory: ImageMemory): Generator<Extent> {
    for (let at = 0; at < memory.bytes;) {
      const data = this.#nextExtent(at, memory.bytes);
      if (data === undefined) return;
      yield* chunksOf(memory, data);
      at = data.end;
    }
  }

  #nextExtent(from: number, bytes: number): Extent | undefined {
    const start = lseek(this.#file.fd, from, SeekFrom.DATA);
    if (start < 0) {
      // ENXIO: nothing but a hole up to the end. Whatever else: no such information, so all is data.
      return start === -Errno.ENXIO ? undefined : { start: from, end: bytes };
    }
    const end = lseek(this.#file.fd, start, SeekFrom.HOLE);
    return { start, end: end < 0 ? bytes : Math.min(end, bytes) };
  }
}

/**
 * Writes `memory` to a file at `path`. Zero pages become holes. The file appears under its name only
 * when all of it is on the device; a file of that name is replaced then and untouched before.
 *
 * @throws {SystemError} when writing fails, for example because the disk is full.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when `path` is something else than a file.
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function saveImage(
  memory: ImageMemory,
  path: string,
  signal?: AbortSignal,
): Promise<void> {
  const action = `Cannot save ${path}`;
  await replaceFile(path, action, signal, (file) => writeMemory(memory, file, 0, action, signal));
}

/**
 * Writes `memory` to `file` from byte `base` on; zero pages become holes, and the file ends no
 * earlier than the memory.
 *
 * @param action What the caller does, for messages.
 * @throws {SystemError} when writing fails.
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function writeMemory(
  memory: ImageMemory,
  file: OutputFile,
  base: number,
  action: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  // Before any data: a file system without room for sparse files of this length says so at once.
  file.truncate(base + memory.bytes);
  const whole = chunksOf(memory, { start: 0, end: memory.bytes });
  await inParallel(whole, action, signal, async ({ start, end }) => {
    const content = readMemory(memory, start, end - start, action);
    for (const data of nonZeroRuns(content, memory.pageSize)) {
      await file.write(content.subarray(data.start, data.end), base + start + data.start);
    }
  });
}

/**
 * All of `memory` in order, piece by piece.
 *
 * @param action What the caller does, for messages.
 * @throws {MultifdError} with code `ERR_MULTIFD_IMAGE` when its file has become shorter.
 */
export function* memoryContent(memory: ImageMemory, action: string): Generator<Uint8Array> {
  for (const { start, end } of chunksOf(memory, { start: 0, end: memory.bytes })) {
    yield readMemory(memory, start, end - start, action);
  }
}

function readMemory(
  memory: ImageMemory,
  offset: number,
  bytes: number,
  action: string,
): Uint8Array {
  const { file } = memory;
  if (file === undefined) return memory.view(offset, bytes);
  const copy = new Arena(bytes);
  const got = readFrom("memory", file.fd, copy.address, bytes, file.offset + offset);
  if (got === bytes) return copy.u8.subarray(0, bytes);
  throw imageError(
    `${action}: the file of its memory ends at byte ${file.offset + offset + got} now, must keep its length`,
  );
}

/** Runs of pages that are not all zero, as ranges of `view`. */
function* nonZeroRuns(view: Uint8Array, pageSize: number): Generator<Extent> {
  const zeros = new Uint8Array(pageSize);
  let start = -1;
  for (let at = 0; at < view.byteLength; at += pageSize) {
    const zero = Buffer.compare(view.subarray(at, at + pageSize), zeros) === 0;
    if (!zero && start < 0) start = at;
    if (zero && start >= 0) {
      yield { start, end: at };
      start = -1;
    }
  }
  if (start >= 0) yield { start, end: view.byteLength };
}

function* chunksOf(memory: ImageMemory, { start, end }: Extent): Generator<Extent> {
  for (let at = start; at < end;) {
    const segmentLeft = memory.segmentBytes - (at % memory.segmentBytes);
    const next = Math.min(end, at + Math.min(IMAGE_CHUNK_BYTES, segmentLeft));
    yield { start: at, end: next };
    at = next;
  }
}

/** Works through `extents`, several at a time; the first failure stops the others. */
async function inParallel(
  extents: Generator<Extent>,
  action: string,
  signal: AbortSignal | undefined,
  work: (extent: Extent) => Promise<void>,
): Promise<void> {
  let failed = false;
  const lane = async (): Promise<void> => {
    for (let next = extents.next(); !next.done && !failed; next = extents.next()) {
      throwIfAborted(action, signal);
      try {
        await work(next.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  // All lanes have ended before anybody closes the file or lets go of the memory.
  const outcomes = await Promise.allSettled(Array.from({ length: IMAGE_CHUNKS_MAX }, lane));
  const failure = outcomes.find((outcome) => outcome.status === "rejected");
  if (failure !== undefined) throw failure.reason as Error;
}
