/**
 * Checks a snapshot as far as that is possible without its guest: everything can be read, the
 * stream ends as it must, and no page is said to be present that the file has no room for.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { isZero } from "../../ffi/libc.ts";
import { findDescription } from "../wire/vm_description.ts";
import { fileError } from "./mapped_ram_format.ts";
import { readDeviceState } from "./guest_state.ts";
import type { Snapshot } from "./snapshot.ts";
import { snapshotWindows, wholeBlock } from "./snapshot_windows.ts";

/** What was found; a file that is damaged is an error instead. */
export interface VerifiedSnapshot {
  /** Pages that were read. */
  readonly presentPages: number;
  /** Present pages that hold nothing but zeros: written without zero detection, or a lost write. */
  readonly presentZeroPages: number;
  /** Blocks that are not in the file, since the destination was to share their memory. */
  readonly sharedBlocks: readonly string[];
  /** Devices the description at the end lists; undefined when the stream has none. */
  readonly devices: readonly string[] | undefined;
}

/** How a file is checked. */
export interface VerifyOptions {
  /** Cancels the check with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many bytes of RAM are done. */
  readonly onProgress?: ((doneBytes: number, allBytes: number) => void) | undefined;
}

const VERIFY_OPTIONS = {
  signal: true,
  onProgress: true,
} satisfies OptionNames<VerifyOptions>;

/** Ends a stream without a description. */
const END_MARK = 0;

/**
 * Reads all present pages and the end of the stream. The headers and bitmaps were checked when the
 * file was opened.
 *
 * @throws {StreamError} when something cannot be read or the stream does not end properly.
 */
export async function verifySnapshot(
  file: Snapshot,
  options: VerifyOptions = {},
): Promise<VerifiedSnapshot> {
  checkOptionNames(VERIFY_OPTIONS, options);
  const { signal, onProgress } = options;
  const action = `Cannot verify ${file.path}`;
  const windows = snapshotWindows(file, file.blocks.map(wholeBlock), {
    action,
    signal,
    onProgress,
  });
  let presentPages = 0;
  let presentZeroPages = 0;
  for await (const window of windows) {
    if (window.isAbsent) continue;
    const { pageSize } = window.block!;
    window.read();
    for (const { start, end } of window.presentRuns()) {
      presentPages += (end - start) / pageSize;
      for (let at = start; at < end; at += pageSize) {
        if (isZero(window.address + at, pageSize)) presentZeroPages++;
      }
    }
  }
  const state = await readDeviceState(file, { signal });
  const sharedBlocks = file.index.sharedBlocks.map(({ idstr }) => idstr);
  return { presentPages, presentZeroPages, sharedBlocks, devices: devicesOf(state) };
}

/**
 * Names of the devices whose state is in a file, as the description at its end lists them.
 *
 * @returns Undefined when the stream has no description.
 * @throws {StreamError} when the stream does not end properly.
 */
export function snapshotDevices(file: Snapshot): string[] | undefined {
  return devicesOf(file.deviceState());
}

function devicesOf(state: Uint8Array): string[] | undefined {
  const description = findDescription(state);
  if (description === undefined) {
    if (state.at(-1) === END_MARK) return undefined;
    throw fileError("TRUNCATED", "the stream ends without an end mark or description");
  }
  return description.json.devices.map((device) => {
    const named = typeof device === "object" && device !== null && "name" in device;
    return named ? String(device.name) : "?";
  });
}
