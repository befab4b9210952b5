/** Files in memory only, as other processes make them for memory that they share. */
import { LIBC } from "../../ffi/libc.ts";
import { openLibrary } from "../../ffi/library.ts";
import { NativeType } from "../../ffi/runtime/runtime.ts";

const MFD_CLOEXEC = 1;

/** Makes an anonymous file in memory; its descriptor is the caller's to close. */
export function makeMemfd(): number {
  const symbols = openLibrary(LIBC, {
    memfd_create: { args: [NativeType.cstring, NativeType.i32], returns: NativeType.i32 }, // name, flags
  });
  const fd = symbols.memfd_create("multifd-test", MFD_CLOEXEC);
  if (fd < 0) throw new Error("Cannot make a file in memory");
  return fd;
}
