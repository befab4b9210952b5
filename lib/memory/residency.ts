/**
 * Whether the pages of a block are there, for blocks whose pages come in when they are touched. The
 * state is in shared memory, so that any thread can ask and wait.
 *
 * @module
 */
import { MultifdError } from "../errors.ts";
import { SessionControl } from "../sync/session_control.ts";

const STATE = 0; // a `State`; whoever places the last page writes it, or fails
const WANTED = 1; // 1 = somebody waits for all pages; written by them
const PAGES_LEFT = 2; // with content, not in place; set by the owner before any thread starts
const WORDS = 3;

const State = { FILLING: 0, RESIDENT: 1, FAILED: 2 } as const;

/** How often waiting for all pages looks. */
const LOOK_MS = 5;

/** The state in the form that can be posted to another thread. */
export interface SharedResidency {
  readonly words: SharedArrayBuffer;
  /** Of the session control, which has the error. */
  readonly control: SharedArrayBuffer;
  /** Whether system calls wait for absent pages; they fail with EFAULT otherwise. */
  readonly systemCallsWait: boolean;
}

/** See the module comment. Each thread makes its own object over the same memory. */
export class Residency {
  readonly shared: SharedResidency;
  readonly #words: Int32Array;

  constructor(shared: SharedResidency) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
  }

  /** The state of a block of which `pages` pages have content. */
  static create(control: SessionControl, pages: number, systemCallsWait: boolean): Residency {
    const words = new SharedArrayBuffer(WORDS * 4);
    new Int32Array(words)[PAGES_LEFT] = pages;
    return new Residency({ words, control: control.buffer, systemCallsWait });
  }

  /** Whether all pages are there. */
  get isResident(): boolean {
    return Atomics.load(this.#words, STATE) === State.RESIDENT;
  }

  /** Whether somebody waits for all pages. */
  get isWanted(): boolean {
    return Atomics.load(this.#words, WANTED) !== 0;
  }

  /** Pages with content that are not in place. */
  get pagesLeft(): number {
    return Atomics.load(this.#words, PAGES_LEFT) >>> 0;
  }

  /** Counts pages with content as placed; true for whoever has placed the last ones. */
  placed(pages: number): boolean {
    return Atomics.sub(this.#words, PAGES_LEFT, pages) >>> 0 === pages;
  }

  /** Says that all pages are there. */
  markResident(): void {
    Atomics.store(this.#words, STATE, State.RESIDENT);
  }

  /** Says that they will never be; the session control has the reason. */
  markFailed(): void {
    Atomics.compareExchange(this.#words, STATE, State.FILLING, State.FAILED);
  }

  /**
   * Has all pages brought in, and waits until they are there.
   *
   * @throws {MultifdError} when some cannot be.
   */
  async resident(): Promise<void> {
    Atomics.store(this.#words, WANTED, 1);
    for (;;) {
      const state = Atomics.load(this.#words, STATE);
      if (state === State.RESIDENT) return;
      if (state === State.FAILED) throw this.#failure();
      await new Promise<void>((resolve) => void setTimeout(resolve, LOOK_MS));
    }
  }

  #failure(): MultifdError {
    return (
      new SessionControl(this.shared.control).error ??
      new MultifdError("ERR_MULTIFD_STOPPED", "Cannot bring in pages: nobody does so any more")
    );
  }
}
