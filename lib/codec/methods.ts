/**
 * The compression methods of the wire format: their flag, their levels, the engines that speak them
 * in order of preference, and how an encoder and a decoder are made of an engine.
 *
 * The order of preference follows measurement (`docs/codecs.md`), per direction and level.
 *
 * @module
 */
import type { PageDecoder, PageEncoder } from "./codec.ts";
import {
  ImmediatePageCompressor,
  ImmediatePageDecompressor,
  type Engine,
  type EngineName,
  type PageEngine,
} from "./engine.ts";
import { PagedDecoder, PagedEncoder, PAGED_WINDOW_BITS, type PageContainer } from "./paged.ts";
import { QatzipDecoder, QatzipEncoder, QATZIP_WINDOW_BITS } from "./qatzip.ts";
import { ZlibDecoder, ZlibEncoder } from "./zlib.ts";
import { MethodFlag } from "../wire/packet.ts";
import { ZstdDecoder, ZstdEncoder } from "./zstd.ts";

/** Name of a compression method, as in QEMU's parameter `multifd-compression`. */
export type CompressionMethod = "none" | "zlib" | "zstd" | "qpl" | "uadk" | "qatzip";

/** What a method is. */
interface MethodDefinition {
  /** Value of the method field in a packet's flags (wire format, section 1.1). */
  readonly flag: number;
  /** Lowest and highest level, absent when the method has none. */
  readonly levels?: readonly [number, number];
  /** How pages are coded; absent when they travel as they are. */
  readonly coding?: Coding;
}

/** How a method uses engines. */
export interface Coding {
  /** Engines that speak the method. */
  readonly engines: readonly EngineName[];
  /** The same in order of preference for a sender of this level. */
  readonly encodeOrder: (level: number) => readonly EngineName[];
  /** The same in order of preference for a receiver. */
  readonly decodeOrder: readonly EngineName[];
  /** Levels between which `level: "auto"` moves with this engine, rising. */
  readonly autoLevels: (engine: Engine) => readonly number[];
  /** Whether the engine can encode pages of this size; absent when every engine can. */
  readonly fits?: (engine: Engine, pageSize: number) => boolean;
  /** @param pageSize In bytes; the engine is one of `engines` and fits. */
  readonly encoder: (engine: Engine, level: number, pageSize: number) => PageEncoder;
  /**
   * @param pageSize In bytes; the engine is one of `engines`.
   * @param windowBits Largest window to take, as a power of two, where the method has several.
   */
  readonly decoder: (engine: Engine, pageSize: number, windowBits: number) => PageDecoder;
}

const ZLIB_ENGINES = ["isal", "libz"] as const;
/** From this level on igzip's ratio falls behind zlib's by more than its speed is worth. */
const ZLIB_RATIO_LEVEL = 4;

const PAGE_ENGINES = ["isal", "libqpl", "libdeflate", "libz"] as const;
/** From this level on the ratio decides, and libdeflate's is the best. */
const PAGE_RATIO_LEVEL = 3;

/** QPL makes up for its ratio by its speed at level 1 only. */
function pageEncodeOrder(level: number): readonly EngineName[] {
  if (level < 2) return PAGE_ENGINES;
  return level < PAGE_RATIO_LEVEL
    ? ["isal", "libdeflate", "libqpl", "libz"]
    : ["libdeflate", "isal", "libqpl", "libz"];
}

const RANGE_ENGINES = ["isal", "libdeflate", "libz"] as const;
const RANGE_DECODE_ORDER = ["libdeflate", "isal", "libz"] as const;

const ZLIB: Coding = {
  engines: ZLIB_ENGINES,
  encodeOrder: (level) =>
    level === 0 || level >= ZLIB_RATIO_LEVEL ? ["libz", "isal"] : ZLIB_ENGINES,
  decodeOrder: ZLIB_ENGINES,
  autoLevels: (engine) => engine.deflateStream!.levelSteps,
  encoder: (engine, level, pageSize) =>
    new ZlibEncoder(engine.deflateStream!.compressor(level), pageSize, level > 0),
  decoder: (engine) => new ZlibDecoder(engine.deflateStream!.decompressor()),
};

const ZSTD: Coding = {
  engines: ["libzstd"],
  encodeOrder: () => ["libzstd"],
  decodeOrder: ["libzstd"],
  autoLevels: (engine) => engine.zstdStream!.levelSteps,
  encoder: (engine, level, pageSize) =>
    new ZstdEncoder(engine.zstdStream!.compressor(level), level, pageSize),
  decoder: (engine, _pageSize, windowBits) =>
    new ZstdDecoder(engine.zstdStream!.decompressor(windowBits), windowBits),
};

const QPL: Coding = {
  ...pagedCoding((): PageContainer => ({ method: "qpl" })),
  engines: PAGE_ENGINES,
  encodeOrder: pageEncodeOrder,
  decodeOrder: ["libdeflate", "isal", "libqpl", "libz"],
};

const UADK: Coding = {
  ...pagedCoding((engine): PageContainer => ({ method: "uadk", zlib: engine.checksums! })),
  engines: RANGE_ENGINES,
  encodeOrder: rangeEncodeOrder,
  decodeOrder: RANGE_DECODE_ORDER,
};

const QATZIP: Coding = {
  engines: RANGE_ENGINES,
  encodeOrder: rangeEncodeOrder,
  decodeOrder: RANGE_DECODE_ORDER,
  autoLevels: (engine) => engine.deflateRange!.levelSteps,
  encoder: (engine, level, pageSize) =>
    new QatzipEncoder(
      pageSize,
      level,
      (wanted) => engine.deflateRange!.compressor(wanted, QATZIP_WINDOW_BITS),
      engine.checksums!,
    ),
  decoder: (engine) => new QatzipDecoder(engine.deflateRange!.decompressor(), engine.checksums!),
};

/** All methods. */
export const METHODS: Readonly<Record<CompressionMethod, MethodDefinition>> = {
  none: { flag: MethodFlag.none },
  zlib: { flag: MethodFlag.zlib, levels: [0, 9], coding: ZLIB },
  zstd: { flag: MethodFlag.zstd, levels: [-7, 20], coding: ZSTD },
  qpl: { flag: MethodFlag.qpl, levels: [0, 9], coding: QPL },
  uadk: { flag: MethodFlag.uadk, levels: [0, 9], coding: UADK },
  qatzip: { flag: MethodFlag.qatzip, levels: [1, 9], coding: QATZIP },
};

/** All method names. */
export const COMPRESSION_METHODS = Object.keys(METHODS) as readonly CompressionMethod[];

function rangeEncodeOrder(level: number): readonly EngineName[] {
  return level >= PAGE_RATIO_LEVEL ? RANGE_DECODE_ORDER : RANGE_ENGINES;
}

/** What qpl and uadk have in common: all but the container and the engines. */
function pagedCoding(
  container: (engine: Engine) => PageContainer,
): Pick<Coding, "autoLevels" | "fits" | "encoder" | "decoder"> {
  return {
    // Level 0, raw pages, for networks that outrun every compressor.
    autoLevels: (engine) => [0, ...pageEngine(engine).levelSteps],
    fits: (engine, pageSize) =>
      engine.deflatePages !== undefined ||
      engine.deflateRange!.shortWindow ||
      pageSize <= 1 << PAGED_WINDOW_BITS,
    encoder: (engine, level, pageSize) => {
      const pages = pageEngine(engine);
      return new PagedEncoder(container(engine), pageSize, level, pages.compressor);
    },
    decoder: (engine, pageSize) =>
      new PagedDecoder(container(engine), pageSize, pageEngine(engine).decompressor()),
  };
}

/** An engine's own page interface, or its range interface as one. */
function pageEngine(engine: Engine): PageEngine {
  if (engine.deflatePages !== undefined) return engine.deflatePages;
  const ranges = engine.deflateRange!;
  return {
    levelSteps: ranges.levelSteps,
    compressor: (level) => new ImmediatePageCompressor(ranges.compressor(level, PAGED_WINDOW_BITS)),
    decompressor: () => new ImmediatePageDecompressor(ranges.decompressor()),
  };
}
