/**
 * Holds a thread while a step of its owner's runs on the event loop, for example writing an image to
 * disk.
 *
 * @module
 */
import { MultifdError, TimeoutError } from "../errors.ts";
import { WAIT_TICK_MS } from "../limits.ts";
import { Semaphore } from "../sync/semaphore.ts";
import type { SessionControl } from "../sync/session_control.ts";

const GATE_WORDS = 2;

/**
 * See the module comment. The owner records the error of a failed step in the session control before
 * it opens the gate, so that the thread can still tell its peer.
 */
export class OwnerGate {
  readonly buffer: SharedArrayBuffer;
  readonly #open: Semaphore;
  readonly #control: SessionControl;

  constructor(source: SharedArrayBuffer | undefined, control: SessionControl) {
    this.buffer = source ?? new SharedArrayBuffer(GATE_WORDS * 4);
    this.#control = control;
    this.#open = new Semaphore(new Int32Array(this.buffer), 0, control);
  }

  /** Owner: the step has ended, well or badly. */
  open(): void {
    this.#open.post();
  }

  /**
   * Thread: waits for the step, at most `limitMs`.
   *
   * @param action What cannot be done without it, for messages.
   */
  wait(action: string, limitMs: number): void {
    const deadline = performance.now() + limitMs;
    let result = this.#open.take(Math.min(WAIT_TICK_MS, limitMs));
    while (result === "timeout" && performance.now() < deadline) {
      this.#control.noteActivity(); // connections have nothing to say meanwhile; the clock is here
      result = this.#open.take(WAIT_TICK_MS);
    }
    this.#control.throwIfFailed();
    if (result === "taken") return;
    if (result === "stopped") {
      throw new MultifdError("ERR_MULTIFD_STOPPED", `Cannot ${action}: the session was stopped`);
    }
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT",
      `Cannot ${action}: the caller's own step was not done within ${limitMs} ms`,
    );
  }
}
