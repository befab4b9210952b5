/**
 * The thread's end of what it and its maker say to each other, while it carries out a job.
 *
 * @module
 */
import type { ThreadMessage } from "./thread_messages.ts";

/** See the module comment. */
export class ThreadPort {
  readonly #number: number;
  readonly #post: (message: ThreadMessage, transfer: readonly ArrayBuffer[]) => void;
  /** Messages that came before anybody listened. */
  #early: unknown[] | undefined = [];
  #listener: ((message: unknown) => void) | undefined;
  #closed = false;

  /**
   * @param number Of the job.
   * @param post Posts to who gave it.
   */
  constructor(
    number: number,
    post: (message: ThreadMessage, transfer: readonly ArrayBuffer[]) => void,
  ) {
    this.#number = number;
    this.#post = post;
  }

  /** Posts to the maker; after the job's end nothing happens. */
  postMessage(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    if (this.#closed) return;
    this.#post({ kind: "message", number: this.#number, message }, transfer);
  }

  /** Gives all messages to `listener`, those that came before included. At most one can listen. */
  onMessage(listener: (message: unknown) => void): void {
    this.#listener = listener;
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) queueMicrotask(() => this.#take(message));
  }

  /** Takes a message to the job. */
  deliver(message: unknown): void {
    if (this.#early !== undefined) this.#early.push(message);
    else this.#take(message);
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

let spent = false;

/** Says that this thread is to have no job after this one, since it may have left something behind. */
export function spendThread(): void {
  spent = true;
}

/** Whether somebody has said so. */
export function isThreadSpent(): boolean {
  return spent;
}
