/**
 * Engine libz: the reference for every deflate format, and the only one with all its levels.
 *
 * @module
 */
import {
  LIBZ,
  zlibAdler32,
  zlibCrc32,
  ZlibDeflate,
  ZlibInflate,
  zlibVersion,
} from "../../ffi/libz.ts";
import type { Engine } from "./engine.ts";

/** From fast to small; those between cost nearly as much as the next one. */
const STEPS = [1, 3, 6, 9] as const;

/** See the module comment. */
export const LIBZ_ENGINE: Engine = {
  source: LIBZ,
  version: zlibVersion,
  deflateStream: {
    levelSteps: STEPS,
    compressor: (level) => new ZlibDeflate(level),
    decompressor: () => new ZlibInflate(),
  },
  deflateRange: {
    levelSteps: STEPS,
    shortWindow: true,
    compressor: (level, windowBits) => new ZlibDeflate(level, windowBits),
    decompressor: () => new ZlibInflate(),
  },
  checksums: { adler32: zlibAdler32, crc32: zlibCrc32 },
};
