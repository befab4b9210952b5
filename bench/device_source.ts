/**
 * Devices of the benchmark, run on threads of the library: hardware that gives its state at a rate of
 * its own, and state that is queued beside RAM.
 *
 * @module
 */
import {
  DeviceClient,
  type DeviceClientHandle,
  type SaveDevice,
  RamBlock,
  type TaskContext,
} from "../mod.ts";

const CHUNK_BYTES = 1_048_576;

/** Fills memory with content of which no page is zero, none equals another, and all is reproducible. */
export function fillState(bytes: Uint8Array, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  const step = Math.imul(seed + 1, 0x9e37_79b1) | 1;
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + 1, step);
}

/** State in memory, and how fast the hardware gives it. */
export interface HardwareState {
  readonly buffer: SharedArrayBuffer;
  /** Bytes a second; 0 for as fast as memory. */
  readonly rate: number;
}

/**
 * Queues the state piece by piece, each copied when the hardware has it ready; the copy stands for
 * the driver's read. At rate 0 the memory device of the library is the better choice.
 */
export function saveHardware(device: SaveDevice, { buffer, rate }: HardwareState): void {
  const state = new Uint8Array(buffer);
  const start = performance.now();
  for (let at = 0; at < state.byteLength; at += CHUNK_BYTES) {
    const part = state.subarray(at, at + CHUNK_BYTES);
    const dueMs = start + ((at + part.byteLength) / rate) * 1000;
    const waitMs = dueMs - performance.now();
    if (rate > 0 && waitMs > 0) Bun.sleepSync(waitMs);
    device.throwIfAborted();
    device.prepare().bytes.set(part);
    device.finish(part.byteLength);
  }
}

/** Several devices one after the other on one thread, as over a main connection. */
export function saveOneByOne(
  device: SaveDevice,
  { buffers, rate }: { readonly buffers: readonly SharedArrayBuffer[]; readonly rate: number },
): void {
  for (const buffer of buffers) saveHardware(device, { buffer, rate });
}

/** What a thread that produces state beside RAM is given. */
export interface BesideRam {
  readonly client: DeviceClientHandle;
  readonly instanceId: number;
  readonly buffer: SharedArrayBuffer;
  /** Two words: threads that are ready, and 1 once they are to begin. */
  readonly start: SharedArrayBuffer;
}

/** Queues a device's state from a pool's thread, for state that travels while RAM does. */
export function queueBesideRam(task: TaskContext, data: BesideRam): void {
  const client = new DeviceClient(data.client);
  const address = RamBlock.fromBuffer("bench", data.buffer).addressAt(0);
  const start = new Int32Array(data.start);
  Atomics.add(start, 0, 1);
  while (Atomics.wait(start, 1, 0, 100) === "timed-out") task.throwIfAborted();
  for (let at = 0; at < data.buffer.byteLength; at += CHUNK_BYTES) {
    client.prepare("bench", data.instanceId);
    client.finishWith(address + at, Math.min(CHUNK_BYTES, data.buffer.byteLength - at));
  }
}
