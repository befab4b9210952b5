/**
 * A thread of `RandomWriters`: changes random pages of a buffer and marks them in a bitmap.
 *
 * Control words: 0 = command, 1 = number of threads that stand still, 2 = bursts
 * of writing so far.
 */
import { workerData } from "node:worker_threads";
import { PageBitmap } from "../../mod.ts";

/** Values of control word 0. */
export const WriterCommand = { PAUSE: 0, RUN: 1, END: 2 } as const;

/** What a writer is started with. */
export interface RandomWriterStart {
  readonly buffer: SharedArrayBuffer;
  readonly pageSize: number;
  readonly bitmap: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly seed: number;
  readonly clears: boolean;
}

if (workerData !== null) write(workerData as RandomWriterStart);

function write(start: RandomWriterStart): void {
  const { buffer, pageSize, bitmap, control, seed, clears } = start;
  const words = new Int32Array(buffer);
  const state = new Int32Array(control);
  const pageWords = pageSize / 4;
  const pages = words.length / pageWords;
  const dirty = new PageBitmap(pages, bitmap);
  let random = seed;
  const next = (below: number): number => {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((random / 2 ** 32) * below);
  };
  for (;;) {
    const command = Atomics.load(state, 0);
    if (command === WriterCommand.END) return;
    if (command === WriterCommand.PAUSE) {
      Atomics.add(state, 1, 1);
      Atomics.wait(state, 0, WriterCommand.PAUSE, 60_000);
      Atomics.sub(state, 1, 1);
      continue;
    }
    // Bursts in one place and leaps, so that runs and single pages both occur.
    const first = next(pages);
    for (let page = first; page < Math.min(pages, first + 1 + next(5)); page++) {
      const at = page * pageWords;
      // Atomic, since two writers may meet in a word; a count never returns to what it was.
      if (clears && next(8) === 0) words.fill(0, at, at + pageWords);
      else Atomics.add(words, at + next(pageWords), 1);
      dirty.set(page);
    }
    Atomics.add(state, 2, 1);
  }
}
