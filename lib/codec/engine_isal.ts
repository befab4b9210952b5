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

/** The whole window of deflate. */
const WINDOW_BITS_MAX = 15;

/**
 * igzip's level for a stream at zlib's `level`. At 1 it is igzip 2, hardly slower than igzip 1 and
 * within a percent of zlib 1; igzip 3, a little better than zlib 1, is the best there is.
 */
function streamLevel(level: number): number {
  if (level === 0) return 0;
  return level === 1 ? 2 : ISAL_LEVEL_MAX;
}

/**
 * igzip's level for single ranges at zlib's `level`. In pages, which is what a short window is for,
 * igzip 0 is twice as fast as 1, and 2 and 3 are slower without a better ratio; in longer ranges 0 is
 * hardly faster than the others.
 */
function rangeLevel(level: number, windowBits: number): number {
  if (windowBits === WINDOW_BITS_MAX) return streamLevel(level);
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
    levelSteps: [1, 2],
    compressor: (level) => new LevelledStream(level),
    decompressor: () => new IsalInflate(),
  },
  deflateRange: {
    levelSteps: [1, 2],
    shortWindow: true,
    compressor: (level, windowBits) => new IsalDeflate(rangeLevel(level, windowBits), windowBits),
    decompressor: () => new IsalInflate(),
  },
  checksums: { adler32: isalAdler32, crc32: isalCrc32 },
};
