/**
 * Recordings: written when a guest has been received, opened to send it on.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import { replaceFile } from "../storage/file_replacement.ts";
import { writeMemory } from "../storage/image_file.ts";
import { openRegularFile, type OpenedFile } from "../storage/opened_file.ts";
import { commonPageSize } from "../memory/block_list.ts";
import type { PageBitmap } from "../memory/page_bitmap.ts";
import { holdBlocks, mapRamBlock, RamBlock } from "../memory/ram_block.ts";
import { checkOptionNames } from "../option_names.ts";
import {
  ATTACH_OPTIONS,
  attachBlocks,
  type AttachedRam,
  type AttachOptions,
  type PagedBlocks,
  type PagedFile,
} from "../paging/attached_ram.ts";
import { answerOf } from "../thread/one_answer.ts";
import type { Unstarted } from "../thread/service.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { formatUuid } from "../wire/uuid.ts";
import type { RecordingJob } from "./recording_messages.ts";
import type { RecordingParts } from "./recording_reader.ts";
import { pagesWithContent, type RecordingPages } from "./recording_pages.ts";
import {
  BLOCK_ALIGNMENT,
  checksum,
  encodeRecordingHeader,
  recordingError,
  type CheckedRange,
  type RecordedBlock,
  type RecordingMetadata,
} from "./recording_layout.ts";

/** What a recording is made of. */
export interface RecordingContent {
  /** The guest's RAM; nobody may change it while it is written. */
  readonly blocks: readonly RamBlock[];
  readonly state: GuestState;
  readonly compression: string;
  readonly statistics: Statistics;
}

/**
 * Writes a recording. It appears under its name only when it is complete and on the device; until
 * then it has none, or is marked incomplete.
 *
 * @returns The metadata written.
 * @throws {SystemError} when writing fails, for example because the disk is full.
 * @throws {CancelledError} when `signal` is aborted.
 */
export async function writeRecording(
  path: string,
  content: RecordingContent,
  signal?: AbortSignal,
): Promise<RecordingMetadata> {
  const action = `Cannot write recording ${path}`;
  const metadata = planRecording(content);
  using held = holdBlocks(content.blocks);
  await replaceFile(path, action, signal, async (file) => {
    const text = new TextEncoder().encode(JSON.stringify(metadata));
    const { state } = content;
    const offset = metadata.devices.offset + metadata.devices.bytes;
    const range = { offset, bytes: text.byteLength, crc32: checksum(text) };
    const header = (complete: boolean): Promise<void> =>
      file.write(encodeRecordingHeader({ complete, metadata: range }), 0);
    await header(false);
    for (const [index, block] of held.blocks.entries()) {
      await writeMemory(block, file, metadata.blocks[index].offset, action, signal);
    }
    await file.write(state.early, metadata.early.offset);
    await file.write(state.devices, metadata.devices.offset);
    await file.write(text, offset);
    // The mark must not reach the device before what it vouches for.
    await file.sync();
    await header(true);
  });
  return metadata;
}

/** A recording opened for reading. Its blocks are mapped: dispose it to let go of them. */
export class Recording implements Disposable {
  readonly metadata: RecordingMetadata;
  /** The guest's RAM as it is in the file, read-only; reading a page reads the file. */
  readonly blocks: readonly RamBlock[];
  /** What is not RAM. */
  readonly state: GuestState;
  readonly #file: OpenedFile;
  readonly #bytes: number;

  private constructor(
    file: OpenedFile,
    metadata: RecordingMetadata,
    blocks: readonly RamBlock[],
    state: GuestState,
  ) {
    this.#file = file;
    this.#bytes = file.length();
    this.metadata = metadata;
    this.blocks = blocks;
    this.state = state;
  }

  /**
   * Opens a recording. The file must not be shortened while it is open: the library
   * reports it, since it reads the file, but a program that looks at the blocks' views is ended by the
   * kernel.
   *
   * @throws {SystemError} when it cannot be read.
   * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when it is none, damaged or incomplete.
   */
  static async open(path: string): Promise<Recording> {
    const action = `Cannot open recording ${path}`;
    const file = openRegularFile(action, path);
    const blocks: RamBlock[] = [];
    try {
      const job = { role: "recording-reader", path, fd: file.fd } satisfies Unstarted<RecordingJob>;
      const { metadata, state } = await answerOf<RecordingParts>(job);
      for (const block of metadata.blocks) blocks.push(mapBlock(file, block, metadata.pageSize));
      return new Recording(file, metadata, blocks, state);
    } catch (error) {
      for (const block of blocks) block[Symbol.dispose]();
      file[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Checks that the file is as long as it was: where it was cut off in the middle of a page, the rest
   * of that page reads as zeros.
   *
   * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when it became shorter.
   */
  checkLength(): void {
    const length = this.#file.length();
    if (length < this.#bytes) {
      throw recordingError(`it has ${length} bytes now, must keep its ${this.#bytes} while in use`);
    }
  }

  /** Name and descriptor of the file, for as long as the recording is open. */
  get file(): { readonly path: string; readonly fd: number } {
    return this.#file;
  }

  /**
   * Which pages of each block lie in the file, in the order of `blocks`; all others are zero.
   *
   * @throws {MultifdError} with code `ERR_MULTIFD_RECORDING` when the file has become shorter.
   */
  presentPages(): PageBitmap[] {
    const { blocks, pageSize } = this.metadata;
    const present = blocks.map((block) => pagesWithContent(this.#file, block, pageSize));
    this.checkLength(); // what was cut off looks like a hole
    return present;
  }

  /**
   * Makes blocks with the guest's RAM that can be written to and used at once, see
   * `Snapshot.attach()`; the blocks of the recording itself are read-only.
   *
   * @throws {RangeError} for blocks that are not in the file.
   * @throws {SystemError} when there is not so much memory.
   */
  async attach(options: AttachOptions = {}): Promise<AttachedRam> {
    checkOptionNames(ATTACH_OPTIONS, options);
    return attachBlocks(this.pagedBlocks(options.blocks), options);
  }

  /** Blocks and their pages, for `attach()` and `servePageFaults()`. */
  pagedBlocks(wanted?: readonly string[]): PagedBlocks {
    const { pageSize } = this.metadata;
    const names = wanted ?? this.metadata.blocks.map(({ idstr }) => idstr);
    const recorded = names.map((name) => this.#block(name));
    const blocks = recorded.map((block) => ({
      idstr: block.idstr,
      bytes: block.bytes,
      pageSize,
      present: pagesWithContent(this.#file, block, pageSize),
    }));
    this.checkLength(); // what was cut off looks like a hole
    const source = ({ path, fd }: PagedFile): RecordingPages => ({
      role: "recording-pages",
      path,
      fd,
      offsets: recorded.map(({ offset }) => offset),
    });
    return { file: this.#file, blocks, source };
  }

  /**
   * Disposes the blocks and closes the file; what still holds the blocks, such as a sender, keeps
   * their memory until it has ended. Safe to call twice.
   */
  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
    for (const block of this.blocks) block[Symbol.dispose]();
  }

  #block(idstr: string): RecordedBlock {
    const { blocks } = this.metadata;
    const found = blocks.find((block) => block.idstr === idstr);
    if (found !== undefined) return found;
    const names = blocks.map((block) => block.idstr).join(", ");
    throw new RangeError(`Cannot find RAM block ${idstr}: ${this.#file.path} has ${names}`);
  }
}

/** The metadata that a recording of `content` has if it is completed now. */
export function planRecording(content: RecordingContent): RecordingMetadata {
  const { blocks, state, compression, statistics } = content;
  const { pageSize } = commonPageSize("Cannot record", blocks);
  let end = BLOCK_ALIGNMENT;
  const recorded = blocks.map(({ idstr, bytes }): RecordedBlock => {
    const offset = Math.ceil(end / BLOCK_ALIGNMENT) * BLOCK_ALIGNMENT;
    end = offset + bytes;
    return { idstr, bytes, offset };
  });
  const range = (bytes: Uint8Array): CheckedRange => {
    const offset = end;
    end += bytes.byteLength;
    return { offset, bytes: bytes.byteLength, crc32: checksum(bytes) };
  };
  const { normalPages, zeroPages, wireBytes, elapsedMs, channels } = statistics;
  return {
    machine: state.machine,
    uuid: formatUuid(state.uuid),
    validateUuid: state.validateUuid,
    pageSize,
    pageBits: state.pageBits ?? null,
    ramSectionId: state.ramSectionId,
    switchoverStart: state.switchoverStart,
    syncMode: state.syncMode,
    blocks: recorded,
    early: range(state.early),
    devices: range(state.devices),
    recordedAt: new Date().toISOString(),
    source: {
      compression,
      channels: channels.length,
      normalPages,
      zeroPages,
      wireBytes,
      elapsedMs,
    },
  };
}

function mapBlock(file: OpenedFile, block: RecordedBlock, pageSize: number): RamBlock {
  const { idstr, offset, bytes } = block;
  try {
    return mapRamBlock(idstr, file, { offset, bytes, pageSize });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw recordingError(error.message, error); // the file's fault, not the caller's
  }
}
