import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import {
  connect,
  createSnapshot,
  descriptorDevice,
  listen,
  memoryDevice,
  RamBlock,
  ThreadPool,
  type ConnectOptions,
  type DeviceDefinition,
  type ListenOptions,
  type Receiver,
  type Sender,
} from "../mod.ts";
import { DeviceTable } from "../lib/engine/device_table.ts";
import { chunkLengths, deviceBytes } from "./kit/device_content.ts";
import { rejectionOf } from "./kit/errors.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1_048_576;
const module = new URL("./device_tasks.ts", import.meta.url).href;
const code = (name: string, data?: unknown) => ({ module, name, data });
const newWords = (): Int32Array => new Int32Array(new SharedArrayBuffer(64));
const timeouts = { connectMs: 20_000, acceptMs: 20_000, idleMs: 20_000, stallMs: 20_000 };
const noLoad = code("loadNothing");

/** A connected pair with one RAM block of 2 MiB, half of it content; `steps` runs between. */
async function migrate(
  options: Partial<ConnectOptions> & { readonly receive?: Partial<ListenOptions> },
  steps: (sender: Sender, receiver: Receiver) => Promise<void>,
): Promise<void> {
  const { receive, ...send } = options;
  const block = RamBlock.allocate("pc.ram", 2 * MIB);
  block.view(0, MIB).set(deviceBytes(99, 0, MIB));
  const common = { channels: send.channels ?? 2, compression: send.compression, timeouts };
  await using receiver = await listen({ endpoint: "127.0.0.1:0", ...common, ...receive });
  await using sender = await connect({
    ...common,
    endpoint: receiver.endpoint,
    blocks: [block],
    ...send,
  });
  await steps(sender, receiver);
}

async function complete(sender: Sender, receiver: Receiver): Promise<void> {
  await sender.send();
  const [sent, received] = await Promise.all([sender.complete(), receiver.complete()]);
  expect(received.deviceBytes).toBe(sent.deviceBytes);
  expect(sent.switchoverMs).toBeGreaterThan(0);
  const [block] = receiver.blocks;
  expect(Buffer.compare(block!.view(0, MIB), deviceBytes(99, 0, MIB))).toBe(0);
}

/** Both ends fail; the first causes of sender and receiver. */
async function failures(sender: Sender, receiver: Receiver) {
  const run = async (): Promise<void> => {
    await sender.send();
    await sender.complete();
  };
  const [source, destination] = await Promise.all([
    rejectionOf(run()),
    rejectionOf(receiver.complete()),
  ]);
  return { source, destination };
}

test("multifd/device/memory: the state of eight devices arrives beside RAM, compared byte by byte", async () => {
  const bytes = 3 * MIB + 12_345;
  const source = Array.from({ length: 8 }, (_, seed) => {
    const buffer = new SharedArrayBuffer(bytes);
    new Uint8Array(buffer).set(deviceBytes(seed, 0, bytes));
    return buffer;
  });
  const target = source.map(() => new SharedArrayBuffer(bytes));
  const device = (buffer: SharedArrayBuffer, index: number) =>
    memoryDevice({ idstr: "0000:00:05.0/vfio", instanceId: index, buffer, chunkBytes: 300_000 });
  await migrate(
    { channels: 4, receive: { devices: target.map(device) } },
    async (sender, receiver) => {
      for (const [index, buffer] of source.entries())
        await sender.registerDevice(device(buffer, index));
      await complete(sender, receiver);
      const loaded = receiver.deviceProgress();
      expect(sender.deviceProgress()).toEqual(loaded);
      expect(loaded[3]).toEqual({
        idstr: "0000:00:05.0/vfio",
        instanceId: 3,
        buffers: Math.ceil(bytes / 300_000) + 1,
        bytes,
      });
    },
  );
  for (const [index, buffer] of target.entries()) {
    expect(Buffer.compare(new Uint8Array(buffer), new Uint8Array(source[index]!))).toBe(0);
  }
});

test("multifd/device/memory: buffers that are not as long as the receiver's chunks", async () => {
  const bytes = 2 * MIB + 4321;
  const buffer = new SharedArrayBuffer(bytes);
  new Uint8Array(buffer).set(deviceBytes(1, 0, bytes));
  for (const chunkBytes of [300_000, 100_001, MIB]) {
    // Larger than the sender's, so that no place follows from an index; or cut by hand as well.
    const copy = new SharedArrayBuffer(bytes + 100);
    const target = memoryDevice({ idstr: "dev", buffer: copy, byteOffset: 100, chunkBytes: MIB });
    await migrate({ channels: 4, receive: { devices: [target] } }, async (sender, receiver) => {
      const memory = memoryDevice({ idstr: "dev", buffer, byteOffset: 7, chunkBytes });
      await sender.registerDevice(memory);
      await sender.queueDeviceState("dev", 0, deviceBytes(1, 0, 7));
      await complete(sender, receiver);
    });
    expect(Buffer.compare(new Uint8Array(copy, 100), new Uint8Array(buffer))).toBe(0);
  }
});

test("multifd/device/memory: buffers longer than the receiver's chunks are refused", async () => {
  const device = (chunkBytes: number) =>
    memoryDevice({ idstr: "dev", buffer: new SharedArrayBuffer(MIB), chunkBytes });
  await migrate(
    { devices: [device(100_001)], receive: { devices: [device(100_000)] } },
    async (sender, receiver) => {
      const { destination } = await failures(sender, receiver);
      expect(destination.code).toBe("ERR_MULTIFD_DEVICE_CHUNK");
    },
  );
});

describe("multifd/device/descriptor", () => {
  const folder = new TemporaryFolder();
  const file = (name: string, content = new Uint8Array(0)): string => {
    const path = folder.file(name);
    writeFileSync(path, content);
    return path;
  };
  afterAll(() => folder[Symbol.dispose]());

  test("from a file into a file", async () => {
    const content = deviceBytes(5, 0, 2 * MIB + 777);
    const from = openSync(file("source", content), "r");
    const to = openSync(file("target"), "w");
    const device = (fd: number) => descriptorDevice({ idstr: "disk", fd, chunkBytes: 100_000 });
    await migrate({ devices: [device(from)], receive: { devices: [device(to)] } }, complete);
    closeSync(from);
    closeSync(to);
    expect(Buffer.compare(readFileSync(folder.file("target")), content)).toBe(0);
  });

  test("from a pipe that is slow into a pipe that is slow, while another device is fast", async () => {
    const total = 2 * MIB;
    const script = `for (let i = 0; i < 16; i++) { process.stdout.write(Buffer.alloc(${total / 16}, i)); await Bun.sleep(5); }`;
    const writer = Bun.spawn(["bun", "-e", script], { stdout: "pipe" });
    // A named pipe is the only one whose both ends this process can open.
    const names = ["in", "out"].map((name) => folder.file(name));
    for (const name of names) Bun.spawnSync(["mkfifo", name]);
    const [inName, outName] = names as [string, string];
    const feed = Bun.spawn(["sh", "-c", 'cat > "$0"', inName], { stdin: writer.stdout });
    const reader = Bun.spawn(["sh", "-c", 'sleep 0.1; cat < "$0"', outName], { stdout: "pipe" });
    const from = openSync(inName, "r");
    const to = openSync(outName, "r+");
    const words = newWords();
    const memory = new SharedArrayBuffer(MIB);
    const collected = new Response(reader.stdout).bytes();
    await migrate(
      {
        devices: [
          descriptorDevice({ idstr: "pipe", fd: from }),
          { idstr: "fast", save: code("saveChunks", { seed: 1, chunks: 20, bytes: 10_000 }) },
        ],
        receive: {
          devices: [
            descriptorDevice({ idstr: "pipe", fd: to }),
            { idstr: "fast", load: code("loadChunks", { memory, words }) },
          ],
        },
      },
      complete,
    );
    closeSync(from);
    closeSync(to);
    const received = await collected;
    await feed.exited;
    const wanted = Buffer.concat(Array.from({ length: 16 }, (_, i) => Buffer.alloc(total / 16, i)));
    expect(Buffer.compare(received, wanted)).toBe(0);
  });
});

test("multifd/device/user code: buffers are loaded in order and the config last", async () => {
  const chunks = 60;
  const bytes = 40_000;
  const lengths = chunkLengths(chunks, bytes);
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const memory = new SharedArrayBuffer(total + 100);
  const words = newWords();
  const device: DeviceDefinition = {
    idstr: "nic",
    instanceId: 4_000_000_000,
    configAfterRam: true,
  };
  await migrate(
    {
      channels: 4,
      devices: [{ ...device, save: code("saveChunks", { seed: 3, chunks, bytes }) }],
      receive: { devices: [{ ...device, load: code("loadChunks", { memory, words }) }] },
    },
    complete,
  );
  expect([words[0], words[1]]).toEqual([total, 100]);
  expect(Buffer.compare(new Uint8Array(memory, 0, total), deviceBytes(3, 0, total))).toBe(0);
  expect(Buffer.compare(new Uint8Array(memory, total), deviceBytes(4, 0, 100))).toBe(0);
});

describe("multifd/device/producers", () => {
  for (const producers of [1, 2, 8, 32]) {
    for (const channels of [1, 2, 4]) {
      test(`${producers} producers on ${channels} channels, RAM beside them`, async () => {
        const buffers = Math.ceil(320 / producers);
        // Up to four devices, hence several producers of one device when there are more.
        const counts = Array.from({ length: Math.min(producers, 4) }, newWords);
        const definition = (_: unknown, index: number): DeviceDefinition => ({
          idstr: "producer",
          instanceId: index,
        });
        const devices = counts.map((words, index) => ({
          ...definition(words, index),
          load: code("checkProduced", words),
        }));
        await migrate(
          { channels, devices: counts.map(definition), receive: { devices } },
          async (sender, receiver) => {
            await using pool = new ThreadPool();
            const words = newWords();
            for (let producer = 0; producer < producers; producer++) {
              const client = sender.deviceClient;
              const instanceId = producer % counts.length;
              const data = { client, producer, instanceId, buffers, words };
              pool.submit(code("produce", data));
            }
            while (Atomics.load(words, 0) < producers) await Bun.sleep(2);
            Atomics.store(words, 1, 1);
            Atomics.notify(words, 1);
            // RAM and its sync points pass between the device state of all producers.
            await sender.send();
            await sender.send();
            await pool.settled();
            expect(pool.errors).toEqual([]);
            await Promise.all([sender.complete(), receiver.complete()]);
          },
        );
        const each = (producers / counts.length) * buffers;
        expect(counts.map((words) => words[0])).toEqual(counts.map(() => each));
      });
    }
  }
});

test("multifd/device/raw: buffers arrive as they are, 10,000 small ones through one channel", async () => {
  const words = newWords();
  const memory = new SharedArrayBuffer(MIB);
  const device: DeviceDefinition = { idstr: "cache", format: "raw" };
  await migrate(
    {
      channels: 1,
      devices: [{ ...device, save: code("saveSmall", 10_000) }],
      receive: { devices: [{ ...device, load: code("loadChunks", { memory, words }) }] },
    },
    async (sender, receiver) => {
      await complete(sender, receiver);
      expect(receiver.deviceProgress()[0]?.buffers).toBe(10_000);
    },
  );
  expect(words[0]).toBe(70_000);
  expect(Buffer.compare(new Uint8Array(memory, 0, 70_000), deviceBytes(8, 0, 70_000))).toBe(0);
});

test("multifd/device/compressed: device state beside zstd, when both sides ask for it", async () => {
  const buffer = new SharedArrayBuffer(MIB);
  new Uint8Array(buffer).set(deviceBytes(1, 0, MIB));
  const target = new SharedArrayBuffer(MIB);
  const both = { compression: "zstd", deviceStateCompressed: true } as const;
  await migrate(
    {
      ...both,
      devices: [memoryDevice({ idstr: "dev", buffer })],
      receive: { ...both, devices: [memoryDevice({ idstr: "dev", buffer: target })] },
    },
    complete,
  );
  expect(Buffer.compare(new Uint8Array(target), new Uint8Array(buffer))).toBe(0);
});

test("connect() and listen() refuse device state beside compression, and say what to do", async () => {
  const devices = [memoryDevice({ idstr: "dev", buffer: new SharedArrayBuffer(8) })];
  const blocks = [RamBlock.allocate("pc.ram", MIB)];
  const endpoint = "127.0.0.1:1";
  const wrong = "Cannot transfer device state: compression is zlib, must be none";
  await expect(connect({ endpoint, blocks, devices, compression: "zlib" })).rejects.toThrow(wrong);
  await expect(listen({ endpoint, devices, compression: "zlib" })).rejects.toThrow(wrong);
});

test("createSnapshot() refuses device state, and says why", async () => {
  const blocks = [RamBlock.allocate("pc.ram", MIB)];
  const devices = [memoryDevice({ idstr: "dev", buffer: new SharedArrayBuffer(8) })];
  const options = { path: "/nonexistent/multifd.snap", blocks, channels: 2, devices };
  await expect(createSnapshot(options)).rejects.toThrow(
    "Cannot write device state to a mapped-ram",
  );
});

test("connect() and listen() refuse devices that cannot work", async () => {
  const blocks = [RamBlock.allocate("pc.ram", MIB)];
  const endpoint = "127.0.0.1:1";
  const load = noLoad;
  for (const device of [
    { idstr: "" },
    { idstr: "x".repeat(256) },
    { idstr: "a\0b" },
    { idstr: "dev", instanceId: -1 },
    { idstr: "dev", instanceId: 2 ** 32 },
    { idstr: "dev", save: { module: "./relative.ts" } },
    { idstr: "dev", config: new Uint8Array(MIB + 1) },
    { idstr: "dev", save: { builtin: "descriptor", fd: 0, chunkBytes: 0 } },
  ] satisfies DeviceDefinition[]) {
    await expect(connect({ endpoint, blocks, devices: [device] })).rejects.toThrow(/^Cannot use/);
  }
  for (const device of [
    { idstr: "dev" },
    { idstr: "dev", load, queuedBytesMax: 0 },
    { idstr: "dev", load, queuedBuffersMax: 1.5 },
  ] satisfies DeviceDefinition[]) {
    await expect(listen({ endpoint, devices: [device] })).rejects.toThrow(/^Cannot /);
  }
  const twice = [
    { idstr: "dev", load },
    { idstr: "dev", load },
  ];
  await expect(listen({ endpoint, devices: twice })).rejects.toThrow(RangeError);
});

test("Sender.registerDevice() refuses a device twice, queueDeviceState() an unknown one, and both go on", async () => {
  const words = newWords();
  const memory = new SharedArrayBuffer(MIB);
  await migrate(
    { receive: { devices: [{ idstr: "dev", load: code("loadChunks", { memory, words }) }] } },
    async (sender, receiver) => {
      await sender.registerDevice({ idstr: "dev" });
      await expect(sender.registerDevice({ idstr: "dev" })).rejects.toThrow(RangeError);
      await expect(sender.queueDeviceState("other", 0, new Uint8Array(1))).rejects.toThrow(
        RangeError,
      );
      await sender.queueDeviceState("dev", 0, deviceBytes(1, 0, 300_000));
      await complete(sender, receiver);
      expect(words[0]).toBe(300_000);
    },
  );
}, 60_000);

test("multifd/device/pauses: silence between packets is no stall, on either side", async () => {
  const slow = { ...timeouts, stallMs: 400 };
  const words = newWords();
  const memory = new SharedArrayBuffer(MIB);
  const save = code("saveSlowly", { buffers: 3, pauseMs: 500 });
  const load = code("loadChunks", { memory, words, delayMs: 300 });
  const finalize = async (): Promise<void> => Bun.sleep(800);
  await migrate(
    {
      timeouts: slow,
      devices: [{ idstr: "dev", save }],
      receive: { timeouts: slow, devices: [{ idstr: "dev", load }], finalize },
    },
    async (sender, receiver) => {
      await Bun.sleep(800);
      await complete(sender, receiver);
    },
  );
  expect(words[0]).toBe(3000);
});

test("multifd/device/slow loads: connections may be silent while what has come is loaded", async () => {
  const words = newWords();
  const memory = new SharedArrayBuffer(MIB);
  const limits = { ...timeouts, idleMs: 2000 };
  const save = code("saveChunks", { seed: 4, chunks: 20, bytes: 1000 });
  const load = code("loadChunks", { memory, words, delayMs: 250 });
  const finalize = async (): Promise<void> => Bun.sleep(1500);
  await migrate(
    {
      devices: [{ idstr: "dev", save }],
      receive: { timeouts: limits, devices: [{ idstr: "dev", load }], finalize },
    },
    complete,
  );
  expect(words[0]).toBeGreaterThan(0);
}, 60_000);

test("multifd/device/slow producers: a main connection that is silent for long does not matter", async () => {
  const words = newWords();
  const memory = new SharedArrayBuffer(MIB);
  const limits = { ...timeouts, idleMs: 2000, stallMs: 2000 };
  const save = code("saveSlowly", { buffers: 30, pauseMs: 250 });
  const load = code("loadChunks", { memory, words });
  await migrate(
    {
      timeouts: limits,
      devices: [{ idstr: "dev", save }],
      receive: { timeouts: limits, devices: [{ idstr: "dev", load }] },
    },
    complete,
  );
  expect(words[0]).toBe(30_000);
}, 60_000);

test("multifd/device/slow consumers: channels wait for room when the devices say so, memory is bounded", async () => {
  const {
    deviceBytes: moved,
    extraBytes,
    limitBytes,
  } = (await fixtureResult("device_memory")) as {
    readonly deviceBytes: number;
    readonly extraBytes: number;
    readonly limitBytes: number;
  };
  expect(moved).toBe(1024 * MIB);
  // Queues, and (2 N + M) buffers of 1 MiB; the rest is for what threads themselves take.
  expect(extraBytes).toBeLessThan(limitBytes + (2 * 2 + 4) * MIB + 96 * MIB);
});

test("multifd/device/waitWhenFull: every buffer in order under limits of a single one", async () => {
  const [chunks, bytes] = [60, 40_000];
  const total = chunkLengths(chunks, bytes).reduce((sum, length) => sum + length, 0);
  for (const limits of [{ queuedBuffersMax: 1 }, { queuedBytesMax: 1 }]) {
    const memory = new SharedArrayBuffer(total + 100);
    const words = newWords();
    const save = code("saveChunks", { seed: 3, chunks, bytes });
    const load = code("loadChunks", { memory, words });
    await migrate(
      {
        channels: 4,
        devices: [{ idstr: "dev", save }],
        receive: { devices: [{ idstr: "dev", waitWhenFull: true, ...limits, load }] },
      },
      complete,
    );
    expect(Buffer.compare(new Uint8Array(memory, 0, total), deviceBytes(3, 0, total))).toBe(0);
  }
});

describe("multifd/device/failure", () => {
  const saved: DeviceDefinition = { idstr: "dev", load: code("loadNothing") };

  test("a device that fails in save: the cause is named, all other saves are aborted and joined", async () => {
    const words = newWords();
    const memory = new SharedArrayBuffer(64 * MIB);
    const others = {
      queuedBytesMax: 64 * MIB,
      load: code("loadChunks", { memory, words: newWords() }),
    };
    await migrate(
      {
        devices: [
          { idstr: "busy", save: code("saveForEver", newWords()) },
          { idstr: "idle", save: code("saveNothing", words) },
          { idstr: "dev", save: code("saveThenFail", 3) },
        ],
        receive: {
          devices: [
            { idstr: "busy", ...others },
            { idstr: "idle", ...others },
            { idstr: "dev", ...others },
          ],
        },
      },
      async (sender, receiver) => {
        const { source } = await failures(sender, receiver);
        expect(source.message).toBe("Cannot save device dev: the hardware is gone");
        expect([source.code, source.side]).toEqual(["ERR_MULTIFD_DEVICE_SAVE", "source"]);
        expect(words[1]).toBe(words[0]);
      },
    );
  });

  test("a device that fails in load: the cause is named at the destination, the source fails too", async () => {
    await migrate(
      {
        devices: [{ idstr: "dev", save: code("saveForEver", newWords()) }],
        receive: { devices: [{ idstr: "dev", load: code("loadThenFail", 5) }] },
      },
      async (sender, receiver) => {
        const { destination } = await failures(sender, receiver);
        expect(destination.message).toBe("Cannot load device dev: the hardware refuses");
        expect([destination.code, destination.side]).toEqual([
          "ERR_MULTIFD_DEVICE_LOAD",
          "destination",
        ]);
      },
    );
  });

  test("a load that ends before the last buffer", async () => {
    const save = code("saveChunks", { seed: 1, chunks: 5, bytes: 100 });
    await migrate(
      { devices: [{ idstr: "dev", save }], receive: { devices: [saved] } },
      async (sender, receiver) => {
        const { destination } = await failures(sender, receiver);
        expect(destination.code).toBe("ERR_MULTIFD_DEVICE_LOAD");
        expect(destination.message).toContain("ended before the last buffer");
      },
    );
  });

  test("a device the receiver does not know", async () => {
    const save = code("saveChunks", { seed: 1, chunks: 5, bytes: 100 });
    await migrate(
      { devices: [{ idstr: "other", save }], receive: { devices: [saved] } },
      async (sender, receiver) => {
        const { destination } = await failures(sender, receiver);
        expect(destination.code).toBe("ERR_MULTIFD_PACKET_DEVICE");
        expect(destination.channel).toBeNumber();
      },
    );
  });

  test("device state where no device is registered", async () => {
    const save = code("saveChunks", { seed: 1, chunks: 5, bytes: 100 });
    await migrate({ devices: [{ idstr: "dev", save }] }, async (sender, receiver) => {
      const { destination } = await failures(sender, receiver);
      expect(destination.code).toBe("ERR_MULTIFD_PACKET_FLAGS");
    });
  });

  for (const [what, step, wanted] of [
    ["an index that is left out", 1, "DEVICE_GAP"],
    ["an index that comes twice", 0xffff_ffff, "DEVICE_DUPLICATE"],
  ] as const) {
    test(`${what}: told at once, with device and index`, async () => {
      const load = code("loadChunks", { memory: new SharedArrayBuffer(MIB), words: newWords() });
      await migrate(
        { receive: { devices: [{ idstr: "dev", load }] } },
        async (sender, receiver) => {
          await sender.registerDevice({ idstr: "dev" });
          for (let buffer = 0; buffer < 5; buffer++) {
            const { nextIdx } = new DeviceTable(sender.deviceClient.devices).devices[0]!;
            if (buffer === 3) nextIdx.add(step);
            await sender.queueDeviceState("dev", 0, new Uint8Array(1000));
          }
          const start = performance.now();
          const { destination } = await failures(sender, receiver);
          expect(destination.code).toBe(`ERR_MULTIFD_${wanted}`);
          expect(destination.message).toMatch(/device dev instance 0/);
          expect(destination.message).toContain(`buffer ${wanted === "DEVICE_GAP" ? 3 : 2} `);
          expect(performance.now() - start).toBeLessThan(timeouts.idleMs / 2);
        },
      );
    });
  }

  test("a device that the sender does not have", async () => {
    // Long enough for a busy machine to come as far as the device.
    const receive = { devices: [saved], timeouts: { ...timeouts, idleMs: 6000 } };
    await migrate({ receive }, async (sender, receiver) => {
      const { destination } = await failures(sender, receiver);
      expect(destination.code).toBe("ERR_MULTIFD_TIMEOUT_DEVICE");
      expect(destination.message).toContain("device dev instance 0: buffer 0 did not come");
    });
  });

  test("a consumer so slow that the limit on bytes is passed", async () => {
    const words = newWords();
    await migrate(
      {
        devices: [{ idstr: "dev", save: code("saveForEver", newWords()) }],
        receive: {
          devices: [{ idstr: "dev", queuedBytesMax: 95_000, load: code("loadStuck", words) }],
        },
      },
      async (sender, receiver) => {
        const { destination } = await failures(sender, receiver);
        expect(destination.code).toBe("ERR_MULTIFD_LIMIT_DEVICE_BYTES");
        expect(destination.message).toContain(
          " of device dev instance 0: 100000 bytes would wait, at most 95000 may",
        );
      },
    );
  });

  test("a consumer that stands still although channels may wait for it", async () => {
    const wait = { waitWhenFull: true, queuedBytesMax: 95_000 };
    const receive = {
      timeouts: { ...timeouts, stallMs: 1000 },
      devices: [{ idstr: "dev", ...wait, load: code("loadStuck", newWords()) }],
    };
    const devices = [{ idstr: "dev", save: code("saveForEver", newWords()) }];
    await migrate({ devices, receive }, async (sender, receiver) => {
      const { destination } = await failures(sender, receiver);
      expect(destination.code).toBe("ERR_MULTIFD_LIMIT_DEVICE_BYTES");
    });
  });

  test("a consumer so slow that the limit on buffers is passed", async () => {
    await migrate(
      {
        devices: [{ idstr: "dev", save: code("saveForEver", newWords()) }],
        receive: {
          devices: [{ idstr: "dev", queuedBuffersMax: 7, load: code("loadStuck", newWords()) }],
        },
      },
      async (sender, receiver) => {
        const { destination } = await failures(sender, receiver);
        expect(destination.code).toBe("ERR_MULTIFD_LIMIT_DEVICE_BUFFERS");
        expect(destination.message).toContain("at most 7 may wait");
      },
    );
  });
});

describe("multifd/device/abort", () => {
  /** Runs a migration that is cancelled by `when`, and checks that it is over within a second. */
  async function expectCancelled(
    device: DeviceDefinition,
    load: DeviceDefinition["load"],
    when: (sender: Sender, words: Int32Array) => Promise<void>,
    words = newWords(),
  ): Promise<void> {
    const abort = new AbortController();
    await migrate(
      { signal: abort.signal, devices: [device], receive: { devices: [{ idstr: "dev", load }] } },
      async (sender, receiver) => {
        const received = rejectionOf(receiver.complete());
        const run = rejectionOf(
          (async () => {
            await sender.send();
            await sender.complete();
          })(),
        );
        await when(sender, words);
        abort.abort(new Error("enough"));
        const start = performance.now();
        expect((await run).code).toBe("ERR_MULTIFD_CANCELLED");
        await received;
        await sender[Symbol.asyncDispose]();
        await receiver[Symbol.asyncDispose]();
        expect(performance.now() - start).toBeLessThan(5000);
      },
    );
  }

  const saving = (words: Int32Array) => ({ idstr: "dev", save: code("saveForEver", words) });
  const begun = async (words: Int32Array, word = 0): Promise<void> => {
    while (Atomics.load(words, word) === 0) await Bun.sleep(2);
  };

  test("while a save streams", async () => {
    const words = newWords();
    const memory = new SharedArrayBuffer(512 * MIB);
    const load = code("loadChunks", { memory, words: newWords() });
    await expectCancelled(saving(words), load, () => begun(words), words);
  });

  test("while a save does nothing", async () => {
    const words = newWords();
    const device = { idstr: "dev", save: code("saveNothing", words) };
    await expectCancelled(device, noLoad, () => begun(words), words);
    expect(words[1]).toBe(1);
  });

  test("while a save waits for a pipe that nobody writes to", async () => {
    using folder = new TemporaryFolder();
    const path = folder.file("pipe");
    Bun.spawnSync(["mkfifo", path]);
    const fd = openSync(path, "r+");
    const device = descriptorDevice({ idstr: "dev", fd });
    await expectCancelled(device, noLoad, () => Bun.sleep(300));
    closeSync(fd);
  });

  test("while the destination loads and everything has been sent", async () => {
    const words = newWords();
    const save = code("saveChunks", { seed: 1, chunks: 5, bytes: 100 });
    const sent = async (): Promise<void> => {
      await begun(words);
      await Bun.sleep(500); // the main stream has ended too, and both sides only wait
    };
    await expectCancelled({ idstr: "dev", save }, code("loadStuck", words), sent, words);
  });

  test("before the completion phase, with state queued by hand", async () => {
    const abort = new AbortController();
    await migrate(
      { signal: abort.signal, receive: { devices: [{ idstr: "dev", load: noLoad }] } },
      async (sender, receiver) => {
        const received = rejectionOf(receiver.complete());
        await sender.registerDevice({ idstr: "dev" });
        await sender.queueDeviceState("dev", 0, deviceBytes(1, 0, 3 * MIB));
        abort.abort();
        expect((await rejectionOf(sender.complete())).code).toBe("ERR_MULTIFD_CANCELLED");
        await received;
      },
    );
  });

  test("leaves neither descriptors nor threads behind", async () => {
    const tasks = (): number => readdirSync("/proc/self/task").length;
    const descriptors = (): number => readdirSync("/proc/self/fd").length;
    const once = async (): Promise<void> => {
      const words = newWords();
      const device = { idstr: "dev", save: code("saveNothing", words) };
      await expectCancelled(device, noLoad, () => begun(words), words);
      await Bun.sleep(100);
    };
    await once();
    const before = [tasks(), descriptors()];
    for (let round = 0; round < 3; round++) await once();
    const after = [tasks(), descriptors()];
    expect(after[1]).toBeLessThanOrEqual(before[1]!);
    // The runtime keeps a few threads of its own.
    expect(after[0]).toBeLessThanOrEqual(before[0]! + 2);
  });
});
