/**
 * Copies a block of a snapshot, or a part of it, to a raw image with holes.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { FILE_JOB_BYTES } from "../limits.ts";
import { replaceFile, throwIfAborted } from "../storage/file_replacement.ts";
import type { MappedRamFile } from "./mapped_ram_file.ts";
import { cutRange, dataRuns } from "./snapshot_ranges.ts";

/** How a block is extracted. */
export interface ExtractOptions {
  /** First byte of the block to extract. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes to extract. Default: up to the end of the block. */
  readonly bytes?: number | undefined;
  /** Cancels; nothing is left behind. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many bytes are done. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

/**
 * Writes bytes of a block to a file of exactly that length; it appears when it is complete.
 *
 * @returns The bytes that are not holes.
 * @throws {RangeError} for a range outside the block.
 * @throws {SystemError | CancelledError} when writing fails or is cancelled.
 */
export async function extractBlock(
  file: MappedRamFile,
  idstr: string,
  path: string,
  options: ExtractOptions = {},
): Promise<number> {
  const block = file.block(idstr);
  const { offset = 0, bytes = block.bytes - offset, signal, onProgress } = options;
  if (!(offset >= 0 && bytes > 0 && offset + bytes <= block.bytes)) {
    throw new RangeError(
      `Cannot extract ${bytes} bytes at ${offset}: RAM block ${idstr} has ${block.bytes} bytes`,
    );
  }
  const action = `Cannot write ${path}`;
  const { present, pageSize } = block;
  const buffer = new Arena(FILE_JOB_BYTES);
  let written = 0;
  await replaceFile(path, action, signal, async (output) => {
    output.truncate(bytes);
    for (const window of cutRange({ offset, bytes }, FILE_JOB_BYTES)) {
      throwIfAborted(action, signal);
      onProgress?.(window.offset - offset, bytes);
      const endPage = Math.ceil((window.offset + window.bytes) / pageSize);
      if (present.nextSet(Math.floor(window.offset / pageSize), endPage) === endPage) continue;
      const content = buffer.u8.subarray(0, window.bytes);
      file.readRange(idstr, window.offset, content);
      for (const run of dataRuns(buffer.address, window.bytes)) {
        const part = content.subarray(run.start, run.end);
        await output.write(part, window.offset - offset + run.start);
        written += part.byteLength;
      }
    }
  });
  onProgress?.(bytes, bytes);
  return written;
}
