/**
 * A guest in a file of any kind: a recording, or a snapshot that is plain or compressed.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { isRecording } from "../recording/recording_layout.ts";
import { Recording } from "../recording/recording.ts";
import { shareRecordedPages } from "./recorded_pages.ts";
import { parseFileUri } from "../snapshot/file_uri.ts";
import { readGuestState } from "../snapshot/guest_state.ts";
import type { SharedPages } from "../snapshot/page_source.ts";
import { openSnapshot } from "../snapshot/snapshot.ts";
import { openRegularFile } from "../storage/opened_file.ts";
import type { AnnouncedBlock } from "../wire/main_stream.ts";
import type { GuestState } from "../wire/opaque_state.ts";

/** How much of a file tells what it is. */
const HEAD_BYTES = 16;

/** A guest whose pages can be read in any order. Dispose it when all that use it have ended. */
export interface GuestFile extends Disposable {
  readonly path: string;
  readonly pages: SharedPages;
  /** What is not memory. */
  readonly state: GuestState;
  /** Blocks that are not in the file, since the destination was to share their memory. */
  readonly missing: readonly AnnouncedBlock[];
}

/**
 * Opens a guest, for one restore or for several at once.
 *
 * @param name Path of a recording or a snapshot, plain or compressed, with `,offset=N` where a snapshot
 * does not begin at the start of the file.
 * @throws {MultifdError} when it is no such file, or none that is whole.
 *
 * @example
 * ```ts
 * using input = await openGuest("guest.snap.zst");
 * const restorers = await Promise.all(
 *   endpoints.map((endpoint) => restore({ instant: true, input, endpoint })),
 * );
 * for (const restorer of restorers) await restorer.complete();
 * ```
 */
export async function openGuest(name: string): Promise<GuestFile> {
  const { path, offset } = parseFileUri(name);
  if (offset === 0 && beginsLikeRecording(path)) {
    const recording = await Recording.open(path);
    return closedOnError(recording, async () => ({
      path,
      pages: shareRecordedPages(recording),
      state: recording.state,
      missing: [],
      [Symbol.dispose]: () => recording[Symbol.dispose](),
    }));
  }
  const snapshot = await openSnapshot(path, { offset });
  return closedOnError(snapshot, async () => ({
    path,
    pages: snapshot.sharePages(),
    state: await readGuestState(snapshot),
    missing: snapshot.index.sharedBlocks,
    [Symbol.dispose]: () => snapshot[Symbol.dispose](),
  }));
}

async function closedOnError<Result>(file: Disposable, work: () => Promise<Result>) {
  try {
    return await work();
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function beginsLikeRecording(path: string): boolean {
  using file = openRegularFile(`Cannot open ${path}`, path);
  const head = new Arena(HEAD_BYTES);
  const got = file.read(head.address, HEAD_BYTES, 0);
  return isRecording(head.u8.subarray(0, got));
}
