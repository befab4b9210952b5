/**
 * Engine libdeflate: whole ranges only, and of those the fastest inflate and the best ratio.
 *
 * @module
 */
import {
  LIBDEFLATE,
  libdeflateAdler32,
  libdeflateCrc32,
  LibdeflateDeflate,
  LibdeflateInflate,
  libdeflateVersion,
} from "../../ffi/libdeflate.ts";
import type { Engine } from "./engine.ts";

/** See the module comment. */
export const LIBDEFLATE_ENGINE: Engine = {
  source: LIBDEFLATE,
  version: libdeflateVersion,
  deflateRange: {
    levelSteps: [1, 3, 6, 9],
    shortWindow: false,
    compressor: (level) => new LibdeflateDeflate(level),
    decompressor: () => new LibdeflateInflate(),
  },
  checksums: { adler32: libdeflateAdler32, crc32: libdeflateCrc32 },
};
