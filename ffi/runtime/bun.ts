/**
 * The runtime contract (see `runtime.ts`) on Bun.
 *
 * @module
 */
import { CryptoHasher, gc, hash, zstdCompress } from "bun";
import { dlopen, type FFIFunction, type Library } from "bun:ffi";
import { fsync, write } from "node:fs";
import { promisify } from "node:util";
import { Worker, type WorkerOptions } from "node:worker_threads";

/**
 * `ptr` is the address of a view's first byte, `toArrayBuffer` memory at an address without a copy,
 * and `read` reads single words at one; names of their own would only cost a call.
 */
export {
  FFIType as NativeType,
  ptr as addressOfView,
  read as readNative,
  toArrayBuffer as viewOfAddress,
} from "bun:ffi";

/** Signature of a native function. */
export type NativeFunction = FFIFunction;

/** The functions that {@linkcode openSymbols} gives. */
export type NativeSymbols<Signatures extends Record<string, NativeFunction>> =
  Library<Signatures>["symbols"];

/**
 * Opens a library by path or soname; it stays open for the life of the process.
 *
 * @throws {Error} when it or one of the symbols cannot be found.
 */
export function openSymbols<Signatures extends Record<string, NativeFunction>>(
  path: string,
  signatures: Signatures,
): NativeSymbols<Signatures> {
  return dlopen(path, signatures).symbols;
}

/** CRC-32 as zlib counts it. */
export function crc32(bytes: Uint8Array): number {
  return hash.crc32(bytes);
}

/** XXH64 with seed 0. */
export function xxHash64(bytes: Uint8Array): bigint {
  return hash.xxHash64(bytes, 0n);
}

/** SHA-256 of all parts behind one another, which may lie in shared memory. */
export function sha256(parts: Iterable<Uint8Array>): Uint8Array {
  const hasher = new CryptoHasher("sha256");
  for (const part of parts) hasher.update(part);
  return new Uint8Array(hasher.digest());
}

/** One zstd frame, compressed on a thread of the runtime's own. */
export function zstdFrame(content: Uint8Array<ArrayBuffer>, level: number): Promise<Uint8Array> {
  return zstdCompress(content, { level });
}

/** Writes some of `bytes` to a file at `position`, on a thread of the runtime's own; how many. */
export async function writeDescriptor(
  fd: number,
  bytes: Uint8Array,
  position: number,
): Promise<number> {
  const { bytesWritten } = await promisify(write)(fd, bytes, 0, bytes.byteLength, position);
  return bytesWritten;
}

/** Waits until a file's data is on its device, on a thread of the runtime's own. */
export const syncDescriptor: (fd: number) => Promise<void> = promisify(fsync);

/** Frees at once what nobody reaches any more. */
export function collectGarbage(): void {
  gc(true);
}

/**
 * Starts a thread whose `workerData` is `data`.
 *
 * @param entry URL of its program, or the program's text.
 * @throws {Error} when there is no memory or number for one more.
 */
export function startThread(entry: URL | string, data: WorkerOptions["workerData"]): Worker {
  return new Worker(entry, { eval: typeof entry === "string", workerData: data as unknown });
}
