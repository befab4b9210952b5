/** Several threads that write at random to one buffer, as a guest would. */
import { Worker } from "node:worker_threads";
import { PageBitmap } from "../../mod.ts";
import { LimitMs } from "./limits.ts";
import { WriterCommand, type RandomWriterStart } from "./random_writer.ts";

/** What the writers do. */
interface RandomWritersOptions {
  readonly bytes: number;
  readonly pageSize?: number;
  /** Whether pages are cleared now and then, at times some that are zero already. */
  readonly clears?: boolean;
  readonly threads?: number;
}

/** See the module comment. Made standing still; dispose to end the threads. */
export class RandomWriters implements AsyncDisposable {
  readonly buffer: SharedArrayBuffer;
  /** The bits of all pages written so far. */
  readonly bitmap: PageBitmap;
  readonly #state = new Int32Array(new SharedArrayBuffer(12));
  readonly #workers: Worker[];

  constructor({ bytes, pageSize = 4096, clears = false, threads = 3 }: RandomWritersOptions) {
    this.buffer = new SharedArrayBuffer(bytes);
    this.bitmap = new PageBitmap(bytes / pageSize);
    this.#workers = Array.from({ length: threads }, (_, index) => {
      const start: RandomWriterStart = {
        buffer: this.buffer,
        pageSize,
        bitmap: this.bitmap.buffer,
        control: this.#state.buffer,
        seed: 17 + index,
        clears,
      };
      return new Worker(new URL("random_writer.ts", import.meta.url), { workerData: start });
    });
  }

  /** Lets the threads write; resolves when something has been written. */
  async run(): Promise<void> {
    const before = Atomics.load(this.#state, 2);
    Atomics.store(this.#state, 0, WriterCommand.RUN);
    Atomics.notify(this.#state, 0);
    await this.#until(() => Atomics.load(this.#state, 2) !== before);
  }

  /** Resolves when all threads stand still. */
  async pause(): Promise<void> {
    Atomics.store(this.#state, 0, WriterCommand.PAUSE);
    await this.#until(() => Atomics.load(this.#state, 1) === this.#workers.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Atomics.store(this.#state, 0, WriterCommand.END);
    Atomics.notify(this.#state, 0);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  async #until(isDone: () => boolean): Promise<void> {
    for (const deadline = Date.now() + LimitMs.thread; !isDone();) {
      if (Date.now() > deadline) throw new Error("Cannot use writers: they do not obey");
      await Bun.sleep(1);
    }
  }
}
