/**
 * Stores a snapshot compressed and still readable at random: as independent zstd frames with
 * a seek table. Absent pages are stored as zeros, whatever an earlier round left at their places.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { processorCount } from "../../ffi/runtime/runtime.ts";
import { zstdFrame } from "../../ffi/runtime/runtime.ts";
import { SEEKABLE_FRAME_BYTES, SEEKABLE_FRAME_BYTES_MAX } from "../limits.ts";
import { replaceFile } from "../storage/file_replacement.ts";
import type { OutputFile } from "../storage/output_file.ts";
import type { Snapshot } from "./snapshot.ts";
import { SeekTableWriter } from "./seek_table.ts";
import { contentChecksum } from "./seekable_zstd.ts";
import { snapshotWindows, wholeSnapshot } from "./snapshot_windows.ts";

/** How a file is compressed. */
export interface CompressSnapshotOptions {
  /** zstd level, 1 to 19. Default 3. */
  readonly level?: number | undefined;
  /**
   * Content of a frame, whole pages of 4 KiB up to 16 MiB: what a reader decompresses for a single page.
   * Default 256 KiB. With 64 KiB a page that somebody waits for is there in a third of the time, and
   * the file is a little larger.
   */
  readonly frameBytes?: number | undefined;
  /** Cancels; nothing is left behind. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many of the file's bytes are done. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

const COMPRESS_SNAPSHOT_OPTIONS = {
  level: true,
  frameBytes: true,
  signal: true,
  onProgress: true,
} satisfies OptionNames<CompressSnapshotOptions>;

/** What compressing came to. */
export interface CompressedSnapshot {
  /** Length of the file as QEMU reads it, holes included. */
  readonly contentBytes: number;
  /** Length of the compressed file. */
  readonly fileBytes: number;
  readonly frames: number;
}

/** Frames that are compressed ahead of the one being written, for each processor. */
const FRAMES_AHEAD = 2;

interface Frame {
  readonly bytes: number;
  readonly checksum: number;
  readonly compressed: Promise<Uint8Array>;
}

/**
 * Compresses a snapshot. `openSnapshot()` reads the result as it reads the original, and
 * zstd's own tools decompress it to a file that QEMU reads.
 *
 * @throws {RangeError} for an impossible level or frame.
 * @throws {SystemError | CancelledError} when writing fails or is cancelled.
 *
 * @example
 * ```ts
 * using file = await openSnapshot("guest.snap");
 * await compressSnapshot(file, "guest.snap.zst");
 * ```
 */
export async function compressSnapshot(
  file: Snapshot,
  path: string,
  options: CompressSnapshotOptions = {},
): Promise<CompressedSnapshot> {
  checkOptionNames(COMPRESS_SNAPSHOT_OPTIONS, options);
  const { level = 3, frameBytes = SEEKABLE_FRAME_BYTES, signal } = options;
  if (!Number.isInteger(level) || level < 1 || level > 19) {
    throw new RangeError(`Cannot compress with level ${level}: must be 1 to 19`);
  }
  if (frameBytes % 4096 !== 0 || !(frameBytes > 0 && frameBytes <= SEEKABLE_FRAME_BYTES_MAX)) {
    throw new RangeError(
      `Cannot compress in frames of ${frameBytes} bytes: must be a multiple of 4096 up to ${SEEKABLE_FRAME_BYTES_MAX}`,
    );
  }
  const action = `Cannot write ${path}`;
  const writer = new FrameWriter(options);
  await replaceFile(path, action, signal, async (output) => {
    const framesAhead = FRAMES_AHEAD * processorCount();
    for await (const frame of framesOf(file, { level, frameBytes }, action, signal)) {
      await writer.add(frame, output, file.index.fileBytes, framesAhead);
    }
    await writer.finish(output, file.index.fileBytes);
  });
  return {
    contentBytes: writer.contentBytes,
    fileBytes: writer.fileBytes,
    frames: writer.frames,
  };
}

/** Writes frames in their order while later ones are being compressed. */
class FrameWriter {
  contentBytes = 0;
  fileBytes = 0;
  frames = 0;
  readonly #options: CompressSnapshotOptions;
  readonly #table = new SeekTableWriter();
  readonly #waiting: Frame[] = [];

  constructor(options: CompressSnapshotOptions) {
    this.#options = options;
  }

  async add(frame: Frame, output: OutputFile, allBytes: number, ahead: number): Promise<void> {
    frame.compressed.catch(() => {}); // awaited in its turn, which may be after another's failure
    this.#waiting.push(frame);
    if (this.#waiting.length > ahead) await this.#write(output, allBytes);
  }

  async finish(output: OutputFile, allBytes: number): Promise<void> {
    while (this.#waiting.length > 0) await this.#write(output, allBytes);
    const table = this.#table.encode();
    await output.write(table, this.fileBytes);
    this.fileBytes += table.byteLength;
  }

  async #write(output: OutputFile, allBytes: number): Promise<void> {
    const { bytes, checksum, compressed } = this.#waiting.shift()!;
    const data = await compressed;
    await output.write(data, this.fileBytes);
    this.#table.add(data.byteLength, bytes, checksum);
    this.fileBytes += data.byteLength;
    this.contentBytes += bytes;
    this.frames++;
    this.#options.onProgress?.(this.contentBytes, allBytes);
  }
}

async function* framesOf(
  file: Snapshot,
  { level, frameBytes }: { readonly level: number; readonly frameBytes: number },
  action: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Frame> {
  const zeroFrames = new Map<number, Frame>();
  const zeroFrame = (bytes: number): Frame => {
    const known = zeroFrames.get(bytes);
    if (known !== undefined) return known;
    const made = compressedFrame(new Uint8Array(bytes), level);
    zeroFrames.set(bytes, made);
    return made;
  };
  const options = { action, signal, windowBytes: frameBytes };
  for await (const window of snapshotWindows(file, wholeSnapshot(file.index), options)) {
    yield window.isAbsent ? zeroFrame(window.bytes) : compressedFrame(window.read().slice(), level);
  }
}

function compressedFrame(content: Uint8Array<ArrayBuffer>, level: number): Frame {
  return {
    bytes: content.byteLength,
    checksum: contentChecksum(content),
    compressed: zstdFrame(content, level),
  };
}
