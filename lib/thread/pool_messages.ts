/**
 * What the threads of a pool are started with and what their owner says to them; they answer in
 * shared words.
 *
 * @module
 */

/** Role of the threads that call functions of modules. */
export const POOL_ROLE = "pool";

/** A thread of a pool. */
export interface PoolJob {
  /** {@linkcode POOL_ROLE}, or that of a feature with tasks of its own. */
  readonly role: string;
  /** Row of this thread in the pool's words. */
  readonly worker: number;
  readonly abortOnError: boolean;
  readonly pool: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

/** One task, of the kind that the threads of the pool's role can do, or the end. */
export type PoolCommand =
  { readonly kind: "task"; readonly task: unknown } | { readonly kind: "close" };
