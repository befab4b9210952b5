/**
 * The library for programs that may end without it: it is loaded with the first call, so that a usage
 * text appears at once.
 *
 * @module
 */

/** Everything that the library has. */
export function library(): typeof import("../mod.ts") {
  return require("../mod.ts") as typeof import("../mod.ts");
}
