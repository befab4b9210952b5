/**
 * How a RAM block is named, and what its id may be. Packets carry it in a field that ends with a NUL, and both sides
 * compare bytes: an id that does not survive the way from bytes to text and back names another block.
 *
 * @module
 */
import { BLOCK_ID_BYTES_MAX } from "../limits.ts";

/** A RAM block as packets and records of the main stream name it. */
export interface WireBlock {
  /** Its place among the blocks of the migration. */
  readonly index: number;
  readonly idstr: string;
  /** The id string as on the wire, without NUL. */
  readonly idBytes: Uint8Array;
  readonly pages: number;
  readonly pageSize: number;
}

/** What is wrong with an id, to be put behind "its id"; undefined when nothing is. */
export function blockIdFault(idstr: string): string | undefined {
  if (!idstr.isWellFormed()) return "is no Unicode text";
  if (idstr.includes("\0")) return "holds a NUL, must be without";
  const bytes = new TextEncoder().encode(idstr).byteLength;
  if (bytes >= 1 && bytes <= BLOCK_ID_BYTES_MAX) return undefined;
  return `has ${bytes} bytes, must be 1 to ${BLOCK_ID_BYTES_MAX}`;
}
