/**
 * What a snapshot holds beside memory, which may be 256 MiB, read without standing in the way of the
 * thread's other work.
 *
 * @module
 */
import type { GuestState } from "../wire/opaque_state.ts";
import type { Snapshot } from "./snapshot.ts";
import { deviceStateRange } from "./snapshot_index.ts";
import { snapshotWindows } from "./snapshot_windows.ts";

/** How state is read. */
export interface ReadStateOptions {
  /** Cancels with a `CancelledError`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads the device state as `Snapshot.deviceState()` does, in turns with the thread's other work.
 *
 * @throws {LimitError} when it does not fit an array, {CancelledError} when `signal` is aborted.
 */
export async function readDeviceState(
  snapshot: Snapshot,
  options: ReadStateOptions = {},
): Promise<Uint8Array> {
  const { path, index } = snapshot;
  const range = deviceStateRange(index, path);
  const state = new Uint8Array(range.bytes);
  const action = `Cannot read device state of ${path}`;
  const ranges = [{ block: undefined, ...range }];
  for await (const window of snapshotWindows(snapshot, ranges, { action, ...options })) {
    state.set(window.read(), window.offset - range.offset);
  }
  return state;
}

/**
 * Reads everything of the guest that is not memory, as `Snapshot.guestState()` does, in turns with
 * the thread's other work.
 *
 * @throws As {@linkcode readDeviceState}.
 */
export async function readGuestState(
  snapshot: Snapshot,
  options: ReadStateOptions = {},
): Promise<GuestState> {
  return snapshot.guestState(await readDeviceState(snapshot, options));
}
