/**
 * A thread that keeps changing a key-value table as fast as it can, and what starts, stops and asks
 * it. It knows nothing of checkpoints: the pages it changes are found by write protection or by
 * comparison.
 *
 * @module
 */
import { Worker, workerData } from "node:worker_threads";
import { KeyValueTable, type TableSeal } from "./colo_table.ts";

const COMMAND = 0; // owner writes: PAUSE, RUN or END
const STILL = 1; // writer: 1 while it stands still, and then the words below are its seal
const SEAL = 2; // three words
const WORDS = 8;

const PAUSE = 0;
const RUN = 1;
const END = 2;

/** Changes between two looks at the command: few enough that a pause begins at once. */
const BATCH = 64;
const KEYS = 1_000_000;

interface WriterStart {
  readonly table: SharedArrayBuffer;
  readonly words: SharedArrayBuffer;
  readonly seal: TableSeal | undefined;
}

/** The owner's end. Made standing still. */
export class TableWriter implements AsyncDisposable {
  readonly #words = new Int32Array(new SharedArrayBuffer(WORDS * 4));
  readonly #worker: Worker;

  /**
   * @param table Memory of the table.
   * @param seal What it holds, if it is not empty.
   */
  constructor(table: SharedArrayBuffer, seal?: TableSeal) {
    const start: WriterStart = { table, words: this.#words.buffer, seal };
    this.#worker = new Worker(new URL(import.meta.url), { workerData: start });
    this.#worker.unref();
  }

  /** Lets the writer go on. */
  run(): void {
    Atomics.store(this.#words, STILL, 0);
    Atomics.store(this.#words, COMMAND, RUN);
    Atomics.notify(this.#words, COMMAND);
  }

  /** Stops the writer; resolves when it stands still, to what the table holds then. */
  async pause(): Promise<TableSeal> {
    Atomics.store(this.#words, COMMAND, PAUSE);
    while (Atomics.load(this.#words, STILL) === 0) await Bun.sleep(0);
    const [changes = 0, sumA = 0, sumB = 0] = new Uint32Array(this.#words.buffer, SEAL * 4, 3);
    return { changes, sums: [sumA, sumB] };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Atomics.store(this.#words, COMMAND, END);
    Atomics.notify(this.#words, COMMAND);
    await this.#worker.terminate();
  }
}

function write({ table: memory, words: shared, seal }: WriterStart): void {
  const words = new Int32Array(shared);
  const table = new KeyValueTable(new Uint8Array(memory), seal);
  for (;;) {
    const command = Atomics.load(words, COMMAND);
    if (command === END) return;
    if (command === RUN) {
      for (let change = 0; change < BATCH; change++) {
        table.put(Math.floor(Math.random() * KEYS), Math.floor(Math.random() * 2 ** 32));
      }
      continue;
    }
    const { changes, sums } = table.seal;
    new Uint32Array(shared, SEAL * 4, 3).set([changes, ...sums]);
    Atomics.store(words, STILL, 1); // pairs with the load in `pause()`
    Atomics.wait(words, COMMAND, PAUSE);
  }
}

const start = workerData as Partial<WriterStart> | null;
if (start?.table !== undefined) write(start as WriterStart);
