/**
 * Opens system libraries by soname on first use. Nothing is opened at import, so a program that
 * never asks for a codec runs on a machine that lacks its library.
 *
 * @module
 */
import {
  fileSystem,
  NativeType,
  openSymbols,
  type NativeFunction,
  type NativeSymbols,
} from "./runtime/runtime.ts";
import { MissingLibraryError, SystemError } from "./errors.ts";

/** How a library is found and what to install when it is not. */
export interface LibrarySource {
  /** Short name, as in `capabilities()`. */
  readonly name: string;
  /** Sonames tried in order; ld.so resolves them. */
  readonly sonames: readonly string[];
  /** Environment variable with a path that replaces the sonames. */
  readonly override: string;
  /** Debian package that brings the library. */
  readonly debianPackage: string;
}

/**
 * Opens the first candidate that has every symbol of `symbols`.
 *
 * The library stays open for the life of the process: Bun's symbols remain callable after `close()`,
 * so closing would only make a stale call possible.
 *
 * @throws {MissingLibraryError} when no candidate can be opened.
 * @throws {SystemError} with errno `ENOMEM` when it is memory that is missing.
 */
export function openLibrary<Symbols extends Record<string, NativeFunction>>(
  source: LibrarySource,
  symbols: Symbols,
): NativeSymbols<Symbols> {
  const override = process.env[source.override];
  const candidates = override === undefined ? source.sonames : [override];
  const reasons: string[] = [];
  for (const candidate of candidates) {
    try {
      return openSymbols(candidate, symbols);
    } catch (error) {
      reasons.push(`${candidate} (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  if (isMemoryShort(source)) {
    throw new SystemError(`Cannot open ${source.name}: there is not enough memory to map it`, {
      errno: "ENOMEM",
    });
  }
  throw new MissingLibraryError(
    `Cannot open ${source.name}: tried ${reasons.join(", ")}, ` +
      `install Debian package ${source.debianPackage} or set ${source.override} to its path`,
  );
}

/** More than any of the libraries takes of the address space. */
const PROBE_BYTES = 16 * 1_048_576;
const MMAP_FAILED = -1;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/**
 * Whether memory is why a library could not be opened; the loader's own words do not tell. One that is
 * in the process already needs no more than a little of it, and any other as much as the probe.
 */
function isMemoryShort(source: LibrarySource): boolean {
  if (mappedFile(source) !== undefined) return true;
  try {
    const symbols = openSymbols("libc.so.6", {
      // addr, length, prot, flags, fd, offset
      mmap: {
        args: [
          NativeType.u64,
          NativeType.u64,
          NativeType.i32,
          NativeType.i32,
          NativeType.i32,
          NativeType.u64,
        ],
        returns: NativeType.i64_fast,
      },
      munmap: { args: [NativeType.u64, NativeType.u64], returns: NativeType.i32 }, // addr, length
    });
    const address = symbols.mmap(0, PROBE_BYTES, 0, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (address === MMAP_FAILED) return true;
    symbols.munmap(Number(address), PROBE_BYTES);
    return false;
  } catch {
    return false; // another C library
  }
}

/**
 * File behind an opened library, links resolved; undefined when it cannot be told, for example
 * because the library was never opened.
 */
export function mappedFile(source: LibrarySource): string | undefined {
  const override = process.env[source.override];
  const { readFileSync, realpathSync } = fileSystem();
  try {
    if (override?.includes("/") === true) return realpathSync(override);
    const names = (override === undefined ? source.sonames : [override]).map(stem);
    return readFileSync("/proc/self/maps", "utf8")
      .split("\n")
      .map((line) => line.slice(line.indexOf("/")))
      .find((path) => names.includes(stem(path)));
  } catch {
    return undefined;
  }
}

/** `libz` of `/lib/libz.so.1.2.13`. */
function stem(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\.so\b.*/, "");
}
