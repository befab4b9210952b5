/**
 * Digests of RAM blocks, and the stream section that carries them from a sender to a receiver of
 * this library. QEMU does not know the section, so it is only written on request.
 *
 * @module
 */
import { sha256 } from "../../ffi/runtime/runtime.ts";
import { DigestError, StreamError } from "../errors.ts";
import { BLOCKS_MAX, DIGEST_BYTES_MAX } from "../limits.ts";
import type { RamBlock } from "../memory/ram_block.ts";
import { memoryContent } from "../storage/image_file.ts";
import type { ByteReader } from "../wire/byte_reader.ts";
import { ownHeader, type OwnSection } from "../wire/own_sections.ts";

/*
 * Section data: u32 number of blocks, then for each a counted block id, a counted algorithm name and
 * a u8 length with the digest's bytes.
 */
const ALGORITHM = "sha256";

/** Digest of a whole block. */
function digestOf(block: RamBlock): Uint8Array {
  return sha256(memoryContent(block, `Cannot digest RAM block ${block.idstr}`));
}

/** The section's data for `blocks`, as they are now. */
export function encodeDigests(blocks: readonly RamBlock[]): Uint8Array {
  const parts: number[] = [0, 0, blocks.length >>> 8, blocks.length & 255];
  for (const block of blocks) {
    for (const field of [
      new TextEncoder().encode(block.idstr),
      new TextEncoder().encode(ALGORITHM),
      digestOf(block),
    ]) {
      parts.push(field.byteLength, ...field);
    }
  }
  return Uint8Array.from(parts);
}

/**
 * Reads the section's data; digests by block id.
 *
 * @throws {StreamError} for an unknown algorithm or too many blocks.
 */
export function readDigests(reader: ByteReader): Map<string, Uint8Array> {
  const count = reader.u32();
  if (count > BLOCKS_MAX) throw malformed(`${count} blocks, at most ${BLOCKS_MAX} are allowed`);
  const digests = new Map<string, Uint8Array>();
  for (let index = 0; index < count; index++) {
    const idstr = reader.countedString();
    const algorithm = reader.countedString();
    if (algorithm !== ALGORITHM) throw malformed(`algorithm ${algorithm}, must be ${ALGORITHM}`);
    const length = reader.u8();
    if (length > DIGEST_BYTES_MAX) throw malformed(`a digest of ${length} bytes`);
    digests.set(idstr, reader.bytes(length));
  }
  return digests;
}

/** The section; its source are the blocks as they are now. */
export const digestSection: OwnSection<readonly RamBlock[], ReadonlyMap<string, Uint8Array>> = {
  header: ownHeader("multifd/digests", 2),
  encode: encodeDigests,
  decode: readDigests,
};

/**
 * Compares what was received with the sender's digests.
 *
 * @throws {DigestError} naming the first block that differs or has no digest.
 */
export function compareDigests(
  blocks: readonly RamBlock[],
  digests: ReadonlyMap<string, Uint8Array>,
): void {
  for (const block of blocks) {
    const theirs = digests.get(block.idstr);
    if (theirs === undefined || Buffer.compare(theirs, digestOf(block)) !== 0) {
      throw new DigestError(
        "ERR_MULTIFD_DIGEST",
        `Cannot verify RAM block ${block.idstr}: its digest ${theirs === undefined ? "is missing" : "differs from the sender's"}`,
      );
    }
  }
}

function malformed(reason: string): StreamError {
  return new StreamError("ERR_MULTIFD_STREAM_DIGESTS", `Cannot read digests: ${reason}`);
}
