/**
 * The libraries that compress. A method is a wire format, an engine is the library that speaks it;
 * which engines a method has is listed in the registry.
 *
 * @module
 */
import { LIBDEFLATE, libdeflateVersion } from "../../ffi/libdeflate.ts";
import { LIBISAL, isalVersion } from "../../ffi/libisal.ts";
import { LIBQPL, qplVersion } from "../../ffi/libqpl.ts";
import type { LibrarySource } from "../../ffi/library.ts";
import { LIBZ, zlibVersion } from "../../ffi/libz.ts";
import { LIBZSTD, zstdVersion } from "../../ffi/libzstd.ts";

/** Name of a library as the engine of a method; `isal` is Intel's ISA-L (igzip). */
export type EngineName = "libz" | "isal" | "libdeflate" | "libzstd" | "libqpl";

/** The library behind an engine. */
export interface EngineLibrary {
  readonly source: LibrarySource;
  /** Opens the library; its version where it tells it. Throws `MissingLibraryError`. */
  readonly version: () => string | undefined;
}

/** All engines, in the order in which they are reported. */
export const ENGINE_LIBRARIES: Readonly<Record<EngineName, EngineLibrary>> = {
  libz: { source: LIBZ, version: zlibVersion },
  isal: { source: LIBISAL, version: isalVersion },
  libdeflate: { source: LIBDEFLATE, version: libdeflateVersion },
  libzstd: { source: LIBZSTD, version: zstdVersion },
  libqpl: { source: LIBQPL, version: qplVersion },
};

/** Why an engine cannot be used here, or undefined when it can. */
export function engineFailure(name: EngineName): unknown {
  try {
    ENGINE_LIBRARIES[name].version();
    return undefined;
  } catch (error) {
    return error;
  }
}
