/**
 * Opens system libraries by soname on first use. Nothing is opened at import, so a program that
 * never asks for a codec runs on a machine that lacks its library.
 *
 * @module
 */
import { dlopen, type FFIFunction, type Library } from "bun:ffi";
import { MissingLibraryError } from "./errors.ts";

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
 */
export function openLibrary<Symbols extends Record<string, FFIFunction>>(
  source: LibrarySource,
  symbols: Symbols,
): Library<Symbols>["symbols"] {
  const override = process.env[source.override];
  const candidates = override === undefined ? source.sonames : [override];
  const reasons: string[] = [];
  for (const candidate of candidates) {
    try {
      return dlopen(candidate, symbols).symbols;
    } catch (error) {
      reasons.push(`${candidate} (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  throw new MissingLibraryError(
    `Cannot open ${source.name}: tried ${reasons.join(", ")}, ` +
      `install Debian package ${source.debianPackage} or set ${source.override} to its path`,
  );
}
