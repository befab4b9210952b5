/**
 * The runtime contract (see `runtime.ts`) on Bun.
 *
 * @module
 */
import { CryptoHasher, gc, hash, stripANSI, zstdCompress } from "bun";
import { dlopen, type FFIFunction, type Library } from "bun:ffi";

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

/** Functions for files by their names. Loaded with the first use: most threads need none of them. */
export const fileSystem = () => process.getBuiltinModule("node:fs");

/** Functions for names of files, loaded as {@linkcode fileSystem} is. */
export const fileNames = () => process.getBuiltinModule("node:path");

/** Processors that this process may use. */
export function processorCount(): number {
  return navigator.hardwareConcurrency;
}

/** Reads from a file at `position`, on a thread of the runtime's own; how many bytes, 0 at its end. */
export function readDescriptor(fd: number, bytes: Uint8Array, position: number): Promise<number> {
  return transferred(fileSystem().read, fd, bytes, position);
}

/** Writes some of `bytes` to a file at `position`, on a thread of the runtime's own; how many. */
export function writeDescriptor(fd: number, bytes: Uint8Array, position: number): Promise<number> {
  return transferred(fileSystem().write, fd, bytes, position);
}

type Transfer = (
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
  done: (error: Error | null, count: number) => void,
) => void;

function transferred(
  transfer: Transfer,
  fd: number,
  bytes: Uint8Array,
  position: number,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  transfer(fd, bytes, 0, bytes.byteLength, position, (error, count) => {
    if (error === null) resolve(count);
    else reject(error);
  });
  return promise;
}

/** Waits until a file's data is on its device, on a thread of the runtime's own. */
export function syncDescriptor(fd: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  fileSystem().fsync(fd, (error) => {
    if (error === null) resolve();
    else reject(error);
  });
  return promise;
}

/** Frees at once what nobody reaches any more. */
export function collectGarbage(): void {
  gc(true);
}

/** What a thread's maker hears of it on its event loop; one that is blocked hears nothing. */
export interface ThreadEvents {
  message(message: unknown): void;
  /** The program did not load, or it threw where nobody caught it; the thread ends. */
  failed(error: Error): void;
  ended(): void;
}

/** A thread, as its maker has it. */
export interface NativeThread {
  postMessage(message: unknown, transfer: readonly MessagePort[]): void;
  /** Whether the thread keeps the process alive; a new one does. */
  ref(): void;
  unref(): void;
  /** Ends the thread, unless it is inside a system call. */
  terminate(): void;
}

/**
 * Starts a thread, which is a web worker: `node:worker_threads` takes five times as long. A web
 * worker drops errors that nobody listens to and ends without saying so, hence the events.
 *
 * @param program URL of its program, see {@linkcode programOf}.
 * @throws {Error} when there is no memory or number for one more.
 */
export function startThread(program: string, events: ThreadEvents): NativeThread {
  const worker = new Worker(program);
  worker.addEventListener("message", ({ data }: MessageEvent) => events.message(data));
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    events.failed(new Error(errorMessage(event.message)));
  });
  worker.addEventListener("close", () => events.ended());
  return {
    postMessage: (message, transfer) => worker.postMessage(message, [...transfer]),
    ref: () => worker.ref(),
    unref: () => worker.unref(),
    terminate: () => worker.terminate(),
  };
}

/** The message in what the runtime makes of an error: source lines, the error, and where it was. */
function errorMessage(report: string): string {
  const text = stripANSI(report).trim();
  return /^(?:[\w$]*Error|error): (.+)$/m.exec(text)?.[1] ?? text;
}

/** URL of a program that is there as text; valid in all threads until the process ends. */
export function programOf(text: string): string {
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}

/**
 * In a thread: takes messages of its maker, from the first one on.
 *
 * @returns Posts one to the maker.
 */
export function serveMessages(
  take: (message: unknown) => void,
): (message: unknown, transfer: readonly ArrayBuffer[]) => void {
  globalThis.addEventListener("message", (event) => take(event.data));
  return (message, transfer) => postMessage(message, [...transfer]);
}
