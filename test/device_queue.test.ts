import { describe, expect, test } from "bun:test";
import { createDeviceQueue, DeviceQueue } from "../lib/engine/device_queue.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { thrownBy } from "./kit/errors.ts";

const LIMIT_MS = 50;
const session = new SessionControl();

function newQueue(options: { bytes?: number; buffers?: number; format?: "vfio" | "raw" } = {}) {
  const { bytes = 1_000_000, buffers = 100, format = "vfio" } = options;
  const handle = createDeviceQueue({
    idstr: "dev",
    instanceId: 3,
    format,
    queuedBytesMax: bytes,
    queuedBuffersMax: buffers,
  });
  return new DeviceQueue(handle, session);
}

function put(queue: DeviceQueue, idx: number, bytes: number, config = false): void {
  queue.commit(queue.reserve(idx, config, bytes));
}

/** Takes and releases one buffer; its index and length. */
function takeOne(queue: DeviceQueue): [number, number] | undefined {
  const buffer = queue.take(LIMIT_MS);
  if (buffer === undefined) return undefined;
  queue.release();
  return [buffer.idx, buffer.bytes.byteLength];
}

/** Code of the error `action` throws, without the common prefix. */
const codeOf = (action: () => unknown): string => thrownBy(action).code.replace("ERR_MULTIFD_", "");

test("DeviceQueue gives buffers out in order, whatever order they came in", () => {
  const queue = newQueue();
  for (const idx of [3, 0, 2, 1]) put(queue, idx, 100 + idx);
  const order = [0, 1, 2, 3].map(() => takeOne(queue));
  expect(order).toEqual([
    [0, 100],
    [1, 101],
    [2, 102],
    [3, 103],
  ]);
  expect(queue.loaded).toEqual({ bytes: 406, buffers: 4 });
});

test("DeviceQueue does not give out a buffer that is still being read", () => {
  const queue = newQueue();
  const idx = queue.reserve(0, false, 10);
  expect(codeOf(() => queue.take(LIMIT_MS))).toBe("TIMEOUT_DEVICE");
  queue.commit(idx);
  expect(takeOne(queue)).toEqual([0, 10]);
});

test("DeviceQueue marks the config, and takes none but buffers in front of it", () => {
  const queue = newQueue();
  put(queue, 2, 5, true);
  expect(codeOf(() => put(queue, 3, 5))).toBe("DEVICE_CONFIG");
  expect(codeOf(() => put(queue, 1, 5, true))).toBe("DEVICE_CONFIG");
  put(queue, 0, 5);
  put(queue, 1, 5);
  expect(queue.take(LIMIT_MS)?.config).toBe(false);
  queue.release();
  takeOne(queue);
  expect(queue.take(LIMIT_MS)?.config).toBe(true);
});

test("DeviceQueue rejects a config in front of a buffer that has come", () => {
  const queue = newQueue();
  put(queue, 4, 5);
  expect(codeOf(() => put(queue, 3, 5, true))).toBe("DEVICE_CONFIG");
});

test("DeviceQueue rejects a buffer that came before, loaded or not, and names it", () => {
  const queue = newQueue();
  put(queue, 0, 5);
  put(queue, 1, 5);
  takeOne(queue);
  for (const idx of [0, 1]) {
    expect(codeOf(() => put(queue, idx, 5))).toBe("DEVICE_DUPLICATE");
    expect(thrownBy(() => put(queue, idx, 5)).message).toContain(
      `buffer ${idx} of device dev instance 3`,
    );
  }
});

describe("DeviceQueue limits", () => {
  test("the bytes that wait, out of order ones included", () => {
    const queue = newQueue({ bytes: 1000 });
    put(queue, 5, 600);
    put(queue, 1, 400);
    expect(codeOf(() => put(queue, 0, 1))).toBe("LIMIT_DEVICE_BYTES");
    expect(thrownBy(() => put(queue, 0, 1)).message).toContain(
      "buffer 0 of device dev instance 3: 1001 bytes would wait, at most 1000 may",
    );
  });

  test("the buffers that wait", () => {
    const queue = newQueue({ buffers: 3 });
    for (const idx of [0, 1, 2]) put(queue, idx, 1);
    expect(codeOf(() => put(queue, 3, 1))).toBe("LIMIT_DEVICE_BUFFERS");
    takeOne(queue);
    put(queue, 3, 1);
  });

  test("how far an index may be ahead", () => {
    const queue = newQueue({ buffers: 3 });
    expect(codeOf(() => put(queue, 0xffff_fffe, 1))).toBe("LIMIT_DEVICE_BUFFERS");
    expect(thrownBy(() => put(queue, 300, 1)).message).toContain("300 after the next to load");
  });

  test("what waits, not what has been", () => {
    const queue = newQueue({ bytes: 1000, buffers: 2 });
    for (let idx = 0; idx < 2000; idx++) {
      put(queue, idx, 1000);
      expect(takeOne(queue)).toEqual([idx, 1000]);
    }
  });
});

test("DeviceQueue reports a gap as soon as everything that was sent is here", () => {
  const queue = newQueue();
  put(queue, 0, 1);
  put(queue, 2, 1);
  queue.expect(2);
  expect(takeOne(queue)).toEqual([0, 1]);
  expect(codeOf(() => queue.take(60_000))).toBe("DEVICE_GAP");
  expect(thrownBy(() => queue.take(60_000)).message).toContain(
    "buffer 1 is missing, all 2 buffers",
  );
});

test("DeviceQueue ends a raw device's state after as many buffers as were sent", () => {
  const queue = newQueue({ format: "raw" });
  for (const bytes of [3, 1, 2]) queue.commit(queue.reserveNext(bytes));
  queue.expect(3);
  const all = [0, 1, 2, 3].map(() => takeOne(queue));
  expect(all).toEqual([[0, 3], [1, 1], [2, 2], undefined]);
});

test("DeviceQueue releases whoever waits when the session stops", () => {
  const stopped = new SessionControl();
  stopped.finish();
  const queue = new DeviceQueue(newQueue().handle, stopped);
  expect(codeOf(() => queue.take(60_000))).toBe("CHANNEL_STOPPED");
  expect(codeOf(() => queue.waitRamLoaded(60_000))).toBe("CHANNEL_STOPPED");
  expect(codeOf(() => queue.reserve(0, false, 1))).toBe("CHANNEL_STOPPED");
});

test("DeviceQueue.waitRamLoaded() waits for the RAM and not for ever", () => {
  const queue = newQueue();
  expect(codeOf(() => queue.waitRamLoaded(LIMIT_MS))).toBe("TIMEOUT_DEVICE");
  queue.ramLoaded();
  queue.waitRamLoaded(LIMIT_MS);
});
