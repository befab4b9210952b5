/**
 * Engine isal: ISA-L's igzip, several times as fast as zlib at about the ratio of zlib's level 1.
 * igzip has four levels of its own, which do not reach zlib's higher ones.
 *
 * @module
 */
import {
  ISAL_LEVEL_MAX,
  isalAdler32,
  isalCrc32,
  IsalDeflate,
  IsalDeflateStream,
  IsalInflate,
  isalVersion,
  LIBISAL,
} from "../../ffi/libisal.ts";
import type { Engine, StreamCompressor } from "./engine.ts";

/** igzip's level for a stream at zlib's `level`: 1 to 3 as they are, the rest cannot be reached. */
function streamLevel(level: number): number {
  return Math.min(level, ISAL_LEVEL_MAX);
}

/**
 * igzip's level for single pages at zlib's `level`. Pages are too short for igzip 2 and 3, which are
 * slower without a better ratio; igzip 0 does without a pass of its own over the page.
 */
function rangeLevel(level: number): number {
  return level <= 1 ? 0 : 1;
}

/** igzip's stream, with levels in zlib's terms. */
class LevelledStream extends IsalDeflateStream implements StreamCompressor {
  constructor(level: number) {
    super(streamLevel(level));
  }

  override reset(level?: number): void {
    super.reset(level === undefined ? undefined : streamLevel(level));
  }
}

/** See the module comment. */
export const ISAL_ENGINE: Engine = {
  source: LIBISAL,
  version: isalVersion,
  deflateStream: {
    levelSteps: [1, 3],
    compressor: (level) => new LevelledStream(level),
    decompressor: () => new IsalInflate(),
  },
  deflateRange: {
    levelSteps: [1, 2],
    shortWindow: true,
    compressor: (level, windowBits) => new IsalDeflate(rangeLevel(level), windowBits),
    decompressor: () => new IsalInflate(),
  },
  checksums: { adler32: isalAdler32, crc32: isalCrc32 },
};
