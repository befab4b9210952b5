/** Files in memory only, as other processes make them for memory that they share. */
import { makeMemoryFile, unwrap } from "../../ffi/libc.ts";

/** Makes an anonymous file in memory; its descriptor is the caller's to close. */
export function makeMemfd(): number {
  return unwrap("make a file in memory", makeMemoryFile("multifd-test"));
}
