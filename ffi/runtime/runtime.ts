/**
 * Everything that the library needs of the JavaScript runtime and that no two runtimes have alike.
 * `bun.ts` is the only implementation; another runtime is another file with the same names.
 *
 * @module
 */
export {
  addressOfView,
  collectGarbage,
  crc32,
  fileNames,
  fileSystem,
  NativeType,
  openSymbols,
  processorCount,
  programOf,
  readDescriptor,
  readNative,
  serveMessages,
  sha256,
  startThread,
  syncDescriptor,
  viewOfAddress,
  writeDescriptor,
  xxHash64,
  zstdFrame,
  type NativeFunction,
  type NativeSymbols,
  type NativeThread,
  type ThreadEvents,
} from "./bun.ts";
