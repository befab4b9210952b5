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
    levels: [-7, 20],
    compressor: (level) => new ZstdCompressStream(level),
    decompressor: () => new ZstdDecompressStream(),
  },
};
