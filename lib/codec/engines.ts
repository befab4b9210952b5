/**
 * All engines by name.
 *
 * @module
 */
import type { Engine, EngineName } from "./engine.ts";
import { ISAL_ENGINE } from "./engine_isal.ts";
import { LIBDEFLATE_ENGINE } from "./engine_libdeflate.ts";
import { LIBQPL_ENGINE } from "./engine_libqpl.ts";
import { LIBZ_ENGINE } from "./engine_libz.ts";
import { LIBZSTD_ENGINE } from "./engine_libzstd.ts";

/** All engines. */
export const ENGINES: Readonly<Record<EngineName, Engine>> = {
  libz: LIBZ_ENGINE,
  isal: ISAL_ENGINE,
  libdeflate: LIBDEFLATE_ENGINE,
  libzstd: LIBZSTD_ENGINE,
  libqpl: LIBQPL_ENGINE,
};

/** Why an engine cannot be used here, or undefined when it can. */
export function engineFailure(name: EngineName): unknown {
  try {
    ENGINES[name].version();
    return undefined;
  } catch (error) {
    return error;
  }
}
