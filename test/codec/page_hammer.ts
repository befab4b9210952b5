/**
 * A thread that rewrites the odd pages of a buffer as fast as it can, each in turn with one of two
 * contents, until control word 0 is not 0. Word 1 counts its rounds.
 */
import { workerData } from "node:worker_threads";

/** What a hammer is started with. */
export interface PageHammerStart {
  readonly memory: SharedArrayBuffer;
  readonly pageSize: number;
  /** Two pages of content. */
  readonly contents: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

if (workerData !== null) hammer(workerData as PageHammerStart);

function hammer({ memory, pageSize, contents, control }: PageHammerStart): void {
  const bytes = new Uint8Array(memory);
  const words = new Int32Array(control);
  const both = [0, 1].map((half) =>
    new Uint8Array(contents).subarray(half * pageSize, (half + 1) * pageSize),
  );
  for (let round = 0; Atomics.load(words, 0) === 0; round++) {
    const content = both[round & 1]!;
    // In pieces, so that a page is often half one content and half the other.
    for (let at = 0; at < pageSize; at += 512) {
      const piece = content.subarray(at, at + 512);
      for (let page = pageSize; page < bytes.length; page += 2 * pageSize) {
        bytes.set(piece, page + at);
      }
    }
    Atomics.add(words, 1, 1);
    Atomics.notify(words, 1);
  }
}
