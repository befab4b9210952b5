/**
 * Where pages come from that are not there yet.
 *
 * @module
 */

/** The pages of a guest at random. Used by one thread. */
export interface PageReader extends Disposable {
  /**
   * Reads bytes of a block from `offset` on to `address`. They are whole pages that have content.
   *
   * @param block Its number in the order in which blocks were given.
   * @throws {MultifdError} when they cannot be read.
   */
  read(address: number, bytes: number, block: number, offset: number): void;
}
