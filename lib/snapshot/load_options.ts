/**
 * How a snapshot is loaded.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import type { OptionNames } from "../option_names.ts";
import { FILE_CHANNEL_OPTIONS, type FileChannelOptions } from "./file_channels.ts";

/** How a file is loaded. */
export interface LoadOptions extends FileChannelOptions {
  /**
   * Memory to load into, matched by id; blocks of the file that are not among them are left out.
   * Absent: every block of the file is allocated, and none may have been left out as shared memory.
   */
  readonly blocks?: readonly RamBlock[] | undefined;
  /**
   * The caller vouches that all of `blocks` is zero now, so that absent pages need not be looked at.
   * Default false; memory that is allocated here is zero anyway.
   */
  readonly zeroed?: boolean | undefined;
  /** Most bytes to allocate. Default 64 GiB. */
  readonly ramBytesMax?: number | undefined;
  /** Touch allocated memory before loading. Default false. */
  readonly prefault?: boolean | undefined;
  /** Called about four times a second with the counters so far. */
  readonly onProgress?: ((statistics: Statistics) => void) | undefined;
}

/** Names of {@linkcode LoadOptions}. */
export const LOAD_OPTIONS = {
  ...FILE_CHANNEL_OPTIONS,
  blocks: true,
  zeroed: true,
  ramBytesMax: true,
  prefault: true,
  onProgress: true,
} satisfies OptionNames<LoadOptions>;
