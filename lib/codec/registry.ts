/**
 * From what a user asks for (a method, perhaps a level and an engine) to the encoder and decoder of
 * a channel.
 *
 * @module
 */
import { MissingLibraryError } from "../errors.ts";
import type { PageDecoder, PageEncoder } from "./codec.ts";
import { GuardedDecoder, GuardedEncoder } from "./disposal_guard.ts";
import type { EngineName } from "./engine.ts";
import { engineFailure, ENGINES } from "./engines.ts";
import { ZSTD_WINDOW_BITS_MAX } from "../limits.ts";
import { COMPRESSION_METHODS, METHODS, type Coding, type CompressionMethod } from "./methods.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { RawDecoder, RawEncoder } from "./none.ts";

/** A method with its level and engine. */
export interface Compression {
  /** Method name; both sides must have the same. */
  readonly method: CompressionMethod;
  /**
   * Default 1; matters to the sender only. zlib 0 to 9; zstd -7 to 20, where negative levels are
   * faster and an extension; qatzip 1 to 9; qpl and uadk 0 to 9, an extension, where 0 sends pages
   * raw. `"auto"` moves the level so that neither processor nor network idles.
   */
  readonly level?: number | "auto" | undefined;
  /** The library that does it on this side. Default: the fastest that is there. */
  readonly engine?: EngineName | undefined;
}

const COMPRESSION_OPTIONS = {
  method: true,
  level: true,
  engine: true,
} satisfies OptionNames<Compression>;

const LEVEL_DEFAULT = 1;

/** A checked choice, in the form that goes to channel threads. */
export interface ResolvedCompression {
  readonly method: CompressionMethod;
  /** Level to start with; 1 for methods without levels. */
  readonly level: number;
  /** Levels the encoder may move between, rising; absent when it keeps its level. */
  readonly autoLevels?: readonly number[];
  /** Largest window of zstd that a decoder takes, as a power of two; absent for the largest of all. */
  readonly windowBits?: number;
  /** Library that does it, absent for method none. */
  readonly engine?: EngineName;
}

/** What a choice is for: senders encode, receivers decode. */
export type CodecDirection = "encode" | "decode";

/**
 * Checks a choice and fills in what it leaves open.
 *
 * @param pageSize In bytes: an engine that cannot encode pages of this size is not chosen.
 * @throws {RangeError} for an unknown method, a level outside its range, an engine that does not
 * speak the method.
 * @throws {MissingLibraryError} when the engine's library, or that of every engine, is missing.
 */
export function resolveCompression(
  compression: Compression | CompressionMethod | undefined,
  direction: CodecDirection,
  pageSize: number,
): ResolvedCompression {
  if (typeof compression === "object") {
    checkOptionNames(COMPRESSION_OPTIONS, compression, "compression");
  }
  const { method, level, engine }: Compression =
    typeof compression === "object" ? compression : { method: compression ?? "none" };
  if (!COMPRESSION_METHODS.includes(method)) {
    throw new RangeError(
      `Cannot use compression ${method as string}: must be one of ${COMPRESSION_METHODS.join(", ")}`,
    );
  }
  const startLevel = checkLevel(method, level);
  const { coding } = METHODS[method];
  if (engine !== undefined && coding?.engines.includes(engine) !== true) {
    const allowed = coding === undefined ? "absent" : `one of ${coding.engines.join(", ")}`;
    throw new RangeError(`Cannot use engine ${engine} for ${method}: must be ${allowed}`);
  }
  if (coding === undefined) return { method, level: startLevel };
  const chosen =
    direction === "decode"
      ? choose(engine ? [engine] : coding.decodeOrder)
      : chooseEncoder(method, coding, engine, startLevel, pageSize);
  const resolved: ResolvedCompression = { method, level: startLevel, engine: chosen };
  if (level !== "auto") return resolved;
  return { ...resolved, autoLevels: coding.autoLevels(ENGINES[chosen]) };
}

/**
 * Makes the encoder of one channel. Use after it was disposed is a `MultifdError` with code
 * `ERR_MULTIFD_DISPOSED`.
 *
 * @param pageSize In bytes.
 * @throws {MissingLibraryError} when the engine's library is not there.
 */
export function createEncoder(compression: ResolvedCompression, pageSize: number): PageEncoder {
  const { method, engine, level } = compression;
  const { coding } = METHODS[method];
  const encoder =
    coding === undefined || engine === undefined
      ? new RawEncoder()
      : coding.encoder(ENGINES[engine], level, pageSize);
  return new GuardedEncoder(method, encoder);
}

/**
 * Makes the decoder of one channel. Use after it was disposed is a `MultifdError` with code
 * `ERR_MULTIFD_DISPOSED`.
 *
 * @param pageSize In bytes.
 * @throws {MissingLibraryError} when the engine's library is not there.
 */
export function createDecoder(compression: ResolvedCompression, pageSize: number): PageDecoder {
  const { method, engine, windowBits = ZSTD_WINDOW_BITS_MAX } = compression;
  const { coding } = METHODS[method];
  const decoder =
    coding === undefined || engine === undefined
      ? new RawDecoder()
      : coding.decoder(ENGINES[engine], pageSize, windowBits);
  return new GuardedDecoder(method, decoder);
}

/** Value of the method field in a packet's flags. */
export function methodFlag(method: CompressionMethod): number {
  return METHODS[method].flag;
}

function checkLevel(method: CompressionMethod, level: number | "auto" | undefined): number {
  const { levels } = METHODS[method];
  if (level === undefined) return LEVEL_DEFAULT;
  if (levels === undefined) {
    throw new RangeError(`Cannot use level ${level}: method ${method} has no levels`);
  }
  if (level === "auto") return LEVEL_DEFAULT;
  if (!Number.isInteger(level) || level < levels[0] || level > levels[1]) {
    throw new RangeError(
      `Cannot use level ${level}: ${method} has levels ${levels[0]} to ${levels[1]}`,
    );
  }
  return level;
}

function chooseEncoder(
  method: CompressionMethod,
  coding: Coding,
  engine: EngineName | undefined,
  level: number,
  pageSize: number,
): EngineName {
  const wanted = engine ? [engine] : coding.encodeOrder(level);
  const fitting = wanted.filter((name) => coding.fits?.(ENGINES[name], pageSize) ?? true);
  if (fitting.length > 0) return choose(fitting);
  throw new RangeError(
    `Cannot use engine ${wanted.join()} for ${method}: it cannot keep the format's short window in ` +
      `pages of ${pageSize} bytes, must be another engine`,
  );
}

/** The first engine that is there; one with an accelerator goes before all others. */
function choose(order: readonly EngineName[]): EngineName {
  const failures = order.map(engineFailure);
  const present = order.filter((_, index) => failures[index] === undefined);
  const chosen = present.find((name) => ENGINES[name].accelerated?.() === true) ?? present[0];
  if (chosen !== undefined) return chosen;
  const [first] = failures;
  if (order.length === 1) throw first;
  const reasons = failures.map((failure) => (failure as Error).message);
  throw new MissingLibraryError(reasons.join("; or "));
}
