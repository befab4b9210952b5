/**
 * What the threads that bring in the pages of attached blocks are started with, and what they say.
 *
 * @module
 */
import type { SharedResidency } from "../memory/residency.ts";
import type { SharedPageRange } from "./page_range.ts";

/** What all threads of one attachment share; each kind of snapshot adds where its pages are. */
export interface AttachedWork {
  /** Name of the snapshot, for messages. */
  readonly path: string;
  readonly ranges: readonly SharedPageRange[];
  /** By the number of the block. */
  readonly residencies: readonly SharedResidency[];
  /** Pieces of ranges to fill first, three words each. */
  readonly first: Uint32Array;
  /** The next piece to fill. */
  readonly cursor: SharedArrayBuffer;
  /** Faults and bytes so far, two numbers of 64 bits. */
  readonly counts: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

/** What one of the threads does. */
export interface AttachedTask {
  /**
   * `serve`: what is touched; `fill`: what nobody has touched yet; `load`: everything, into memory
   * that nobody watches.
   */
  readonly task: "serve" | "fill" | "load";
  /** Of the watch; -1 when there is none. */
  readonly userfaultfd: number;
  /** Whether other threads fill. */
  readonly hasFillers: boolean;
}

/** Of a thread that serves: it does from now on. */
export interface AttachedReply {
  readonly kind: "ready";
}
