/**
 * Memory that the state of a device ends up in, and which of its buffers can be received straight
 * into it.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";

/** See the module comment: number k of `chunkBytes` each begins at k times that. */
export interface DeviceTarget {
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly chunkBytes: number;
}

/**
 * Whether the place of a buffer is known. Its place is the right one if all in front of it are as long
 * as they should be; the load thread sees whether they were, and moves what was not, always to the
 * front, where everything has been loaded. That is why no buffer may be longer than a chunk.
 *
 * @throws {DeviceError} for a buffer that is.
 */
export function isInPlace(
  target: DeviceTarget | undefined,
  idx: number,
  config: boolean,
  bytes: number,
): boolean {
  if (target === undefined || config || bytes === 0) return false;
  const { byteLength, chunkBytes } = target;
  if (bytes > chunkBytes) {
    throw new DeviceError(
      "ERR_MULTIFD_DEVICE_CHUNK",
      `Cannot queue buffer ${idx}: it has ${bytes} bytes, must be at most the ${chunkBytes} of a chunk here`,
    );
  }
  const end = idx * chunkBytes + bytes;
  return bytes === chunkBytes ? end <= byteLength : end === byteLength;
}
