/**
 * The compression methods of the wire format and who implements them.
 *
 * @module
 */
import type { PageDecoder, PageEncoder } from "./codec.ts";
import type { EngineName } from "./engines.ts";
import { RawDecoder, RawEncoder } from "./none.ts";
import { ZlibDecoder, ZlibEncoder } from "./zlib.ts";
import { ZstdDecoder, ZstdEncoder } from "./zstd.ts";

/** Name of a compression method, as in QEMU's parameter `multifd-compression`. */
export type CompressionMethod = "none" | "zlib" | "zstd";

/** A method with its level; levels of other methods are refused. */
export interface Compression {
  readonly method: CompressionMethod;
  /** Default 1. zlib 0 to 9; zstd -7 to 20, where negative levels are faster and an extension. */
  readonly level?: number | undefined;
}

interface MethodDefinition {
  /** Value of the method field in a packet's flags (wire format, section 1.1). */
  readonly flag: number;
  /** Lowest and highest level, absent when the method has none. */
  readonly levels?: readonly [number, number];
  /** Engines that speak the method, the one to be preferred first; none for method none. */
  readonly engines: readonly EngineName[];
  readonly encoder: (level: number) => PageEncoder;
  readonly decoder: () => PageDecoder;
}

const METHODS: Readonly<Record<CompressionMethod, MethodDefinition>> = {
  none: {
    flag: 0x00,
    engines: [],
    encoder: () => new RawEncoder(),
    decoder: () => new RawDecoder(),
  },
  zlib: {
    flag: 0x02,
    levels: [0, 9],
    engines: ["libz"],
    encoder: (level) => new ZlibEncoder(level),
    decoder: () => new ZlibDecoder(),
  },
  zstd: {
    flag: 0x04,
    levels: [-7, 20],
    engines: ["libzstd"],
    encoder: (level) => new ZstdEncoder(level),
    decoder: () => new ZstdDecoder(),
  },
};

const LEVEL_DEFAULT = 1;

/** All method names. */
export const COMPRESSION_METHODS = Object.keys(METHODS) as readonly CompressionMethod[];

/** A checked method and level, in the form that goes to channel threads. */
export interface ResolvedCompression {
  readonly method: CompressionMethod;
  readonly level: number;
}

/**
 * Checks a method and level.
 *
 * @throws {RangeError} for an unknown method or a level outside its range.
 */
export function resolveCompression(
  compression: Compression | CompressionMethod = "none",
): ResolvedCompression {
  const { method, level } =
    typeof compression === "string" ? { method: compression, level: undefined } : compression;
  if (!COMPRESSION_METHODS.includes(method)) {
    throw new RangeError(
      `Cannot use compression ${method as string}: must be one of ${COMPRESSION_METHODS.join(", ")}`,
    );
  }
  const { levels } = METHODS[method];
  if (level === undefined) return { method, level: LEVEL_DEFAULT };
  if (levels === undefined) {
    throw new RangeError(`Cannot use level ${level}: method ${method} has no levels`);
  }
  if (!Number.isInteger(level) || level < levels[0] || level > levels[1]) {
    throw new RangeError(
      `Cannot use level ${level}: ${method} has levels ${levels[0]} to ${levels[1]}`,
    );
  }
  return { method, level };
}

/** Engines that speak a method, the one to be preferred first; empty for method none. */
export function methodEngines(method: CompressionMethod): readonly EngineName[] {
  return METHODS[method].engines;
}

/** Lowest and highest level of a method; undefined when it has none. */
export function methodLevels(method: CompressionMethod): readonly [number, number] | undefined {
  return METHODS[method].levels;
}

/** Value of the method field in a packet's flags. */
export function methodFlag(method: CompressionMethod): number {
  return METHODS[method].flag;
}

/**
 * Makes the encoder of one channel.
 *
 * @throws {MissingLibraryError} when the method's library is not there.
 */
export function createEncoder(compression: ResolvedCompression): PageEncoder {
  return METHODS[compression.method].encoder(compression.level);
}

/**
 * Makes the decoder of one channel.
 *
 * @throws {MissingLibraryError} when the method's library is not there.
 */
export function createDecoder(compression: ResolvedCompression): PageDecoder {
  return METHODS[compression.method].decoder();
}
