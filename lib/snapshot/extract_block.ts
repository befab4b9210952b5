/**
 * Copies a block of a snapshot, or a part of it, to a raw image with holes.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { replaceFile } from "../storage/file_replacement.ts";
import type { Snapshot } from "./snapshot.ts";
import { snapshotWindows } from "./snapshot_windows.ts";

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

const EXTRACT_OPTIONS = {
  offset: true,
  bytes: true,
  signal: true,
  onProgress: true,
} satisfies OptionNames<ExtractOptions>;

/**
 * Writes bytes of a block to a file of exactly that length; it appears when it is complete.
 *
 * @returns The bytes that are not holes.
 * @throws {RangeError} for a range outside the block.
 * @throws {SystemError | CancelledError} when writing fails or is cancelled.
 */
export async function extractBlock(
  file: Snapshot,
  idstr: string,
  path: string,
  options: ExtractOptions = {},
): Promise<number> {
  checkOptionNames(EXTRACT_OPTIONS, options);
  const block = file.block(idstr);
  const { offset = 0, bytes = block.bytes - offset, signal, onProgress } = options;
  if (!(offset >= 0 && bytes > 0 && offset + bytes <= block.bytes)) {
    throw new RangeError(
      `Cannot extract ${bytes} bytes at ${offset}: RAM block ${idstr} has ${block.bytes} bytes`,
    );
  }
  const action = `Cannot write ${path}`;
  const windows = snapshotWindows(file, [{ block, offset, bytes }], { action, signal, onProgress });
  let written = 0;
  await replaceFile(path, action, signal, async (output) => {
    output.truncate(bytes);
    for await (const window of windows) {
      if (window.isAbsent) continue;
      const content = window.read();
      for (const { start, end } of window.dataRuns()) {
        await output.write(content.subarray(start, end), window.offset - offset + start);
        written += end - start;
      }
    }
  });
  return written;
}
