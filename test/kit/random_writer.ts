/**
 * A thread that changes random pages of a buffer and marks them in a bitmap, as a guest would.
 *
 * Control words: 0 = run (1), pause (0) or end (2); 1 = threads that stand still.
 */
import { workerData } from "node:worker_threads";
import { PageBitmap } from "../../mod.ts";

/** What a writer is started with. */
export interface RandomWriterStart {
  readonly buffer: SharedArrayBuffer;
  readonly pageSize: number;
  readonly bitmap: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly seed: number;
}

const PAUSED = 0;
const ENDED = 2;

if (workerData !== null) {
  const { buffer, pageSize, bitmap, control, seed } = workerData as RandomWriterStart;
  const words = new Int32Array(buffer);
  const state = new Int32Array(control);
  const pages = buffer.byteLength / pageSize;
  const dirty = new PageBitmap(pages, bitmap);
  let random = seed;
  const next = (below: number): number => {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    return random % below;
  };
  for (;;) {
    const command = Atomics.load(state, 0);
    if (command === ENDED) break;
    if (command === PAUSED) {
      Atomics.add(state, 1, 1);
      Atomics.notify(state, 1);
      Atomics.wait(state, 0, PAUSED, 60_000);
      Atomics.sub(state, 1, 1);
      continue;
    }
    // Bursts in one place and leaps, so that runs and single pages both occur.
    const start = next(pages);
    for (let page = start; page < Math.min(pages, start + 1 + next(5)); page++) {
      // Atomic, since two writers may meet in a word; a count never returns to what it was.
      Atomics.add(words, (page * pageSize) / 4 + next(pageSize / 4), 1);
      dirty.set(page);
    }
  }
}
