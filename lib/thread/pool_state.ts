/**
 * The shared words of a thread pool: who is busy, how the last task ended, and whether all are to
 * stop. Owner and workers share words instead of messages, because the owner may be a thread that
 * is blocked for the whole session and sees no event.
 *
 * @module
 */
import { fromErrorRecord, toErrorRecord, type ErrorRecord, type MultifdError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import type { Stoppable } from "../sync/semaphore.ts";

const ABORT = 0; // 1 once all tasks are to end; set by anybody, never cleared
const CHANGES = 1; // counts ended tasks; workers add and notify
const POOL_WORDS = 32;

// Words of one worker; the task's thread writes them, but for BUSY_OF which the owner sets.
const STATE = 0;
const RECORD_BYTES = 1; // length of the error record, 0 when the task ended well
const RECORD_WORDS_AT = 32;
const RECORD_BYTES_MAX = 4096;
const ROW_WORDS = RECORD_WORDS_AT + RECORD_BYTES_MAX / 4;

const IDLE = 0;
const BUSY = 1;
const ENDED = 2; // the task has ended, the owner has not looked yet

/** See the module comment. Each thread makes its own object over the same buffer. */
export class PoolState implements Stoppable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #session: Stoppable;

  /**
   * @param source The buffer to attach to, or how many workers a new pool may have.
   * @param session What else ends the pool.
   */
  constructor(source: SharedArrayBuffer | number, session: Stoppable) {
    this.buffer =
      typeof source === "number"
        ? new SharedArrayBuffer((POOL_WORDS + source * ROW_WORDS) * 4)
        : source;
    this.#words = new Int32Array(this.buffer);
    this.#session = session;
  }

  /** Whether tasks are to end: the pool was aborted or its session stops. */
  get stopping(): boolean {
    return Atomics.load(this.#words, ABORT) !== 0 || this.#session.stopping;
  }

  /** Asks all tasks to end. */
  abort(): void {
    Atomics.store(this.#words, ABORT, 1);
    Atomics.notify(this.#words, ABORT);
  }

  /** Owner: marks a worker as busy, before its task is posted. */
  begin(worker: number): void {
    this.#words[this.#at(worker) + RECORD_BYTES] = 0;
    Atomics.store(this.#words, this.#at(worker) + STATE, BUSY);
  }

  /** Task's thread: writes down how the task ended. */
  end(worker: number, error: unknown): void {
    const at = this.#at(worker);
    if (error !== undefined) {
      const bytes = encode(toErrorRecord(error));
      new Uint8Array(this.buffer, (at + RECORD_WORDS_AT) * 4, RECORD_BYTES_MAX).set(bytes);
      this.#words[at + RECORD_BYTES] = bytes.byteLength;
    }
    Atomics.store(this.#words, at + STATE, ENDED); // pairs with the exchange in `collect()`
    Atomics.add(this.#words, CHANGES, 1);
    Atomics.notify(this.#words, CHANGES);
  }

  /** Owner: takes the result of a worker whose task has ended; undefined while it has not. */
  collect(worker: number): { readonly error: MultifdError | undefined } | undefined {
    const at = this.#at(worker);
    if (Atomics.compareExchange(this.#words, at + STATE, ENDED, IDLE) !== ENDED) return undefined;
    const length = this.#words[at + RECORD_BYTES];
    if (length === 0) return { error: undefined };
    const bytes = new Uint8Array(this.buffer, (at + RECORD_WORDS_AT) * 4, length).slice();
    return { error: fromErrorRecord(JSON.parse(new TextDecoder().decode(bytes)) as ErrorRecord) };
  }

  /** Number of tasks that have ended; for {@linkcode waitChange}. */
  get changes(): number {
    return Atomics.load(this.#words, CHANGES);
  }

  /** Sleeps until a task ends after `seen` was read, at most a tick. */
  waitChange(seen: number): void {
    Atomics.wait(this.#words, CHANGES, seen, WAIT_TICK_MS);
  }

  #at(worker: number): number {
    return POOL_WORDS + worker * ROW_WORDS;
  }
}

function encode(record: ErrorRecord): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(record));
  if (bytes.byteLength <= RECORD_BYTES_MAX) return bytes;
  return encode({ ...record, message: record.message.slice(0, 500) });
}
