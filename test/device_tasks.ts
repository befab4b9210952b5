/**
 * Code that devices of the tests are saved and loaded with, on threads of the library.
 *
 * @module
 */
import { DeviceClient, type DeviceClientHandle, type LoadDevice, type SaveDevice } from "../mod.ts";
import { deviceBytes } from "./kit/device_content.ts";

/** Queues `chunks` buffers of differing lengths that add up to known content, then a config. */
export function saveChunks(
  device: SaveDevice,
  data: { seed: number; chunks: number; bytes: number },
): void {
  let at = 0;
  for (let chunk = 0; chunk < data.chunks; chunk++) {
    const length = 1 + ((chunk * 7919) % data.bytes);
    const buffer = device.prepare();
    buffer.bytes.set(deviceBytes(data.seed, at, length));
    device.finish(length);
    at += length;
  }
  device.config(deviceBytes(data.seed + 1, 0, 100));
}

/** Appends all buffers to shared memory, its length to word 0 and the config's to word 1. */
export function loadChunks(
  device: LoadDevice,
  data: { memory: SharedArrayBuffer; words: Int32Array; delayMs?: number },
): void {
  const memory = new Uint8Array(data.memory);
  let at = 0;
  for (let next = device.next(); next !== undefined; next = device.next()) {
    memory.set(next.bytes, at);
    at += next.bytes.byteLength;
    if (data.delayMs !== undefined) Bun.sleepSync(data.delayMs);
  }
  Atomics.store(data.words, 0, at);
  const config = device.config();
  memory.set(config, at);
  Atomics.store(data.words, 1, config.byteLength);
}

/** Queues its share of a device's buffers, as one of several producers. */
export function produce(
  _: unknown,
  data: {
    client: DeviceClientHandle;
    producer: number;
    instanceId: number;
    buffers: number;
    words: Int32Array;
  },
): void {
  const client = new DeviceClient(data.client);
  // All begin together, so that they compete from the first buffer on.
  Atomics.add(data.words, 0, 1);
  while (Atomics.load(data.words, 1) === 0) Atomics.wait(data.words, 1, 0, 100);
  for (let buffer = 0; buffer < data.buffers; buffer++) {
    const { bytes } = client.prepare("producer", data.instanceId);
    const length = 16 + ((buffer * 104_729) % 70_000);
    const view = new DataView(bytes.buffer, bytes.byteOffset, length);
    view.setUint32(0, data.producer);
    view.setUint32(4, buffer);
    view.setUint32(8, length);
    bytes.fill((data.producer + buffer) & 255, 12, length);
    client.finish(length);
  }
}

/** Checks what `produce()` queued, each producer's buffers in order; counts them in word 0. */
export function checkProduced(device: LoadDevice, words: Int32Array): void {
  const expected = new Map<number, number>();
  for (let next = device.next(); next !== undefined; next = device.next()) {
    const { bytes } = next;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const producer = view.getUint32(0);
    const buffer = expected.get(producer) ?? 0;
    expected.set(producer, buffer + 1);
    const found = [view.getUint32(4), view.getUint32(8)].join();
    const wanted = [buffer, bytes.byteLength].join();
    if (found !== wanted) throw new Error(`buffer says ${found}, must say ${wanted}`);
    const fill = (producer + buffer) & 255;
    if (!bytes.subarray(12).every((byte) => byte === fill)) {
      throw new Error(`buffer ${buffer} of producer ${producer} is spoilt`);
    }
    Atomics.add(words, 0, 1);
  }
}

/** Fails after some buffers. */
export function saveThenFail(device: SaveDevice, buffers: number): void {
  for (let buffer = 0; buffer < buffers; buffer++) device.queue(new Uint8Array(1000));
  throw new Error("the hardware is gone");
}

/** Queues without end until it is aborted. */
export function saveForEver(device: SaveDevice, words: Int32Array): void {
  for (;;) {
    device.queue(new Uint8Array(10_000));
    Atomics.add(words, 0, 1);
  }
}

/** Blocks without queueing anything, until it is aborted. */
export function saveNothing(device: SaveDevice, words: Int32Array): void {
  Atomics.add(words, 0, 1);
  while (!device.aborted) Bun.sleepSync(5);
  Atomics.add(words, 1, 1);
  device.throwIfAborted();
}

/** Fails at the buffer of that number. */
export function loadThenFail(device: LoadDevice, buffers: number): void {
  for (let buffer = 0; buffer < buffers; buffer++) device.next();
  throw new Error("the hardware refuses");
}

/** Does not look at what came. */
export function loadNothing(): void {}

/** Takes one buffer and then none until word 1 is set or it is aborted. */
export function loadStuck(device: LoadDevice, words: Int32Array): void {
  device.next();
  Atomics.add(words, 0, 1);
  while (Atomics.load(words, 1) === 0 && !device.aborted) Bun.sleepSync(5);
  while (device.next() !== undefined);
}

/** Queues so many buffers of 7 bytes. */
export function saveSmall(device: SaveDevice, buffers: number): void {
  for (let buffer = 0; buffer < buffers; buffer++) {
    device.prepare().bytes.set(deviceBytes(8, buffer * 7, 7));
    device.finish(7);
  }
}

/** Queues one buffer that names its producer; counts in words 0 to 2 how far it is. */
export function finishInTurn(
  _: unknown,
  data: { client: DeviceClientHandle; words: Int32Array; producer: number },
): void {
  const client = new DeviceClient(data.client);
  Atomics.add(data.words, 1, 1);
  const { bytes } = client.prepare("dev");
  const text = new TextEncoder().encode(`producer ${data.producer}`);
  bytes.set(text);
  Atomics.add(data.words, 0, 1);
  client.finish(text.byteLength);
  Atomics.add(data.words, 2, 1);
}

/** Queues buffers of 1000 bytes with pauses between them. */
export function saveSlowly(
  device: SaveDevice,
  { buffers, pauseMs }: { buffers: number; pauseMs: number },
): void {
  for (let buffer = 0; buffer < buffers; buffer++) {
    Bun.sleepSync(pauseMs);
    device.queue(new Uint8Array(1000));
  }
}

/** Queues so many bytes in full buffers, whatever is in them. */
export function saveSameBuffer(device: SaveDevice, bytes: number): void {
  for (let at = 0; at < bytes; at += 1_048_576) {
    device.prepare().bytes.fill(at & 255);
    device.finish(1_048_576);
  }
}

/** Takes every buffer and looks at it. */
export function countBytes(device: LoadDevice): void {
  for (let next = device.next(); next !== undefined; next = device.next()) {
    if (next.bytes[0] !== next.bytes.at(-1)) throw new Error("a buffer is spoilt");
  }
}
