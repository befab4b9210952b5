/**
 * How far a side of a pair has come, in shared words: whoever survives the other side or its own
 * session thread reads here what its memory holds.
 *
 * @module
 */
import type { MultifdError } from "../errors.ts";

const EPOCH = 0; // last checkpoint in place; -1 before the first migration is complete
const STEP = 1; // see Step
const WORDS = 2;

/** What a session does between the migration and its end, for messages. */
export const CHECKPOINT_PHASE = "checkpoint";

/** What the session thread does. */
export const Step = {
  /** Between two checkpoints, or still in the first migration. */
  IDLE: 0,
  /** A checkpoint has begun, and nothing of it is in place anywhere. */
  UNDER_WAY: 1,
  /** Primary only: all of it is sent, so the secondary may have put it in place. */
  SENT: 2,
  /** Secondary only: pages are being put in place; memory is no checkpoint as a whole. */
  APPLYING: 3,
} as const;

/** A checkpoint that had begun when the pair broke. */
export interface PendingCheckpoint {
  readonly epoch: number;
  /** Whether the secondary's memory holds it. Only a primary cannot know. */
  readonly applied: "no" | "unknown";
}

/** What is left when a pair has ended. */
export interface FailOver {
  /**
   * Number of the last checkpoint in place, as far as this side knows; 0 is the memory as the first
   * migration left it, which is a mixture when it was written to meanwhile.
   */
  readonly epoch: number;
  /** The checkpoint that was under way, if there was one. */
  readonly pending: PendingCheckpoint | undefined;
  /** Why the pair ended; undefined when one of the two ended it in order. */
  readonly cause: MultifdError | undefined;
}

/** See the module comment. Written by the session thread alone. */
export class ColoProgress {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(WORDS * 4);
    this.#words = new Int32Array(this.buffer);
    if (buffer === undefined) this.#words[EPOCH] = -1;
  }

  /** Number of the last checkpoint in place, or -1. */
  get epoch(): number {
    return Atomics.load(this.#words, EPOCH);
  }

  /** The migration is complete, or the checkpoint with that number is in place. */
  reach(epoch: number): void {
    Atomics.store(this.#words, STEP, Step.IDLE);
    Atomics.store(this.#words, EPOCH, epoch);
  }

  /** The next checkpoint has begun, or got further. */
  step(step: number): void {
    Atomics.store(this.#words, STEP, step);
  }

  /** Whether memory is between two checkpoints; whoever finds that after the end has a mixture. */
  get applying(): boolean {
    return Atomics.load(this.#words, STEP) === Step.APPLYING;
  }

  /** The checkpoint that is under way. */
  get pending(): PendingCheckpoint | undefined {
    const step = Atomics.load(this.#words, STEP);
    if (step === Step.IDLE) return undefined;
    return { epoch: this.epoch + 1, applied: step === Step.SENT ? "unknown" : "no" };
  }
}
