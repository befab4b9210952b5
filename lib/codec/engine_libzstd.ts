/**
 * Engine libzstd: all of method zstd.
 *
 * @module
 */
import {
  LIBZSTD,
  ZstdCompressStream,
  ZstdDecompressStream,
  zstdVersion,
} from "../../ffi/libzstd.ts";
import type { Engine } from "./engine.ts";

/** See the module comment. */
export const LIBZSTD_ENGINE: Engine = {
  source: LIBZSTD,
  version: zstdVersion,
  zstdStream: {
    // Level 0 is another name of 3; beyond 12 no network is slow enough.
    levelSteps: [-5, -3, -1, 1, 3, 5, 7, 9, 12],
    compressor: (level) => new ZstdCompressStream(level),
    decompressor: (windowBits) => new ZstdDecompressStream(windowBits),
  },
};
