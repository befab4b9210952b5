/**
 * The thread's end of what it and its maker say to each other, while it carries out a job.
 *
 * @module
 */
import type { MakerMessage, ThreadMessage } from "./thread_messages.ts";

/** See the module comment. */
export class ThreadPort {
  readonly #number: number;
  readonly #post: (message: unknown, transfer: readonly ArrayBuffer[]) => void;
  /** Messages that came before anybody listened. */
  #early: unknown[] | undefined = [];
  #listener: ((message: unknown) => void) | undefined;
  #closed = false;

  /**
   * @param number Of the job.
   * @param post Posts to the maker.
   */
  constructor(number: number, post: (message: unknown, transfer: readonly ArrayBuffer[]) => void) {
    this.#number = number;
    this.#post = post;
  }

  /** Posts to the maker; after the job's end nothing happens. */
  postMessage(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    if (this.#closed) return;
    this.#post(
      { kind: "message", number: this.#number, message } satisfies ThreadMessage,
      transfer,
    );
  }

  /** Gives all messages to `listener`, those that came before included. At most one can listen. */
  onMessage(listener: (message: unknown) => void): void {
    this.#listener = listener;
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) queueMicrotask(() => this.#take(message));
  }

  /** Takes a message of the maker. */
  deliver(message: MakerMessage & { readonly kind: "message" }): void {
    if (message.number !== this.#number) return;
    if (this.#early !== undefined) this.#early.push(message.message);
    else this.#take(message.message);
  }

  /** The job has ended: what it left running can neither hear nor say anything any more. */
  close(): void {
    this.#closed = true;
    this.#listener = undefined;
  }

  #take(message: unknown): void {
    this.#listener?.(message);
  }
}

let current: ThreadPort | undefined;

/** The port of the job that this thread carries out; jobs take it when they begin. */
export function threadPort(): ThreadPort {
  if (current !== undefined) return current;
  throw new RangeError("Cannot talk to the maker of this thread: it has no job");
}

/** Says which job this thread carries out from now on. */
export function setThreadPort(port: ThreadPort | undefined): void {
  current = port;
}
