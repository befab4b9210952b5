/**
 * Intel QPL: deflate of single pages by the IAA accelerator, or by its software path.
 *
 * @module
 */
import { FFIType } from "bun:ffi";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where QPL is looked for. */
export const LIBQPL: LibrarySource = {
  name: "libqpl",
  sonames: ["libqpl.so.1"],
  override: "MULTIFD_LIBQPL",
  debianPackage: "libqpl1",
};

const SYMBOLS = {
  qpl_get_library_version: { args: [], returns: FFIType.cstring },
} as const;

type Libqpl = ReturnType<typeof open>;

const open = () => openLibrary(LIBQPL, SYMBOLS);
let opened: Libqpl | undefined;

function libqpl(): Libqpl {
  return (opened ??= open());
}

/** Version text of the running QPL. */
export function qplVersion(): string {
  return String(libqpl().qpl_get_library_version());
}
