import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { connect, listen, RamBlock, type MultifdError } from "../mod.ts";
import { CutProxy } from "./kit/cut_proxy.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages } from "./kit/page_content.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";

const key = randomBytes(32).toString("hex");
const tls = { kind: "psk", keys: `qemu:${key}\n` } as const;
const block = RamBlock.allocate("pc.ram", 512 * 4096);
block.view(0, block.bytes).set(randomBytes(block.bytes));

/** Short ones: what is spoiled early leaves a receiver waiting for somebody else. */
const timeouts = { connectMs: 2500, acceptMs: 2500, idleMs: 8000, stallMs: 5000 } as const;
const CHANNELS = 2;
/** More than any handshake here has, and less than each channel carries. */
const IN_THE_DATA = 60_000;

/** Sooner than any wait of the library ends, and for longer than a test waits. */
const [DRIP_MS, DRIP_ENDS_MS] = [40, 8000];

type Filter = CutProxy["filter"];

/**
 * Spoils bytes of one connection of the source, once so many have gone by: of the main one, or of the
 * first channel that has so many, since any of them may carry most of the pages.
 */
function after(
  bytes: number,
  where: "main" | "channel",
  spoil: (chunk: Buffer) => Buffer | undefined,
): Filter {
  const passed: number[] = [];
  let done = false;
  return (chunk, from, _, number) => {
    if (from !== "source" || (number === 0) !== (where === "main") || done) return chunk;
    passed[number] = (passed[number] ?? 0) + chunk.byteLength;
    if (passed[number] < bytes) return chunk;
    done = true;
    return spoil(chunk);
  };
}

/** A transfer through a man in the middle: what became of both sides. */
async function through(filter: Filter): Promise<{
  errors: (MultifdError | undefined)[];
  blocks: readonly RamBlock[];
}> {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: CHANNELS,
    tls,
    timeouts,
  });
  using proxy = new CutProxy(receiver.endpoint);
  proxy.filter = filter;
  const receiving = receiver.complete();
  const sending = (async () => {
    await using sender = await connect({
      endpoint: proxy.endpoint,
      channels: CHANNELS,
      blocks: [block],
      tls,
      timeouts,
    });
    await sender.send();
    await sender.complete();
  })();
  const ends = await Promise.allSettled([sending, receiving]);
  const errors = ends.map((end) => {
    if (end.status === "fulfilled") return undefined;
    return end.reason as MultifdError;
  });
  return { errors, blocks: receiver.blocks };
}

/** Both sides fail, and with errors of their own. */
async function expectBothFail(filter: Filter): Promise<MultifdError[]> {
  const { errors } = await through(filter);
  expect(errors.map((error) => error?.side)).toEqual(["source", "destination"]);
  for (const error of errors) {
    expect(error?.code).toMatch(/^ERR_MULTIFD_(TLS|CHANNEL|TIMEOUT|PEER|SYSTEM|STREAM)/);
    expect(error?.message).not.toContain(key);
  }
  return errors as MultifdError[];
}

function flipped(chunk: Buffer): Buffer {
  chunk[chunk.byteLength >> 1]! ^= 0x10;
  return chunk;
}

/** Alerts in the clear, as anybody can write them. */
const alert = (level: number, description: number): Buffer =>
  Buffer.from([0x15, 3, 3, 0, 2, level, description]);

test("a transfer through somebody who only looks on is whole", async () => {
  const { errors, blocks } = await through((chunk) => chunk);
  expect(errors).toEqual([undefined, undefined]);
  expect(differingPages(block, blocks[0]!)).toEqual([]);
});

test("a bit that is changed, anywhere on any connection, fails both sides", async () => {
  const before = resourcesNow();
  for (const [where, bytes] of [
    ["main", 1],
    ["main", 600],
    ["channel", 1],
    ["channel", 600],
    ["channel", 3 * IN_THE_DATA],
  ] as const) {
    await expectBothFail(after(bytes, where, flipped));
  }
  const { errors } = await through(after(IN_THE_DATA, "channel", flipped));
  expect(errors[1]?.code).toBe("ERR_MULTIFD_TLS_RECORD");
  expect(errors[1]?.channel).toBeNumber();
  await expectReleased(before);
}, 120_000);

test("records that are cut, in the handshake and in the data, fail both sides", async () => {
  const half = (chunk: Buffer): Buffer => chunk.subarray(0, chunk.byteLength >> 1);
  for (const [where, bytes] of [
    ["main", 1],
    ["channel", 1],
    ["channel", IN_THE_DATA],
  ] as const) {
    await expectBothFail(after(bytes, where, half));
    await expectBothFail(after(bytes, where, () => undefined));
  }
}, 120_000);

test("alerts and handshakes in the middle of the data are taken for no end and no beginning", async () => {
  let hello: Buffer | undefined;
  const first: Filter = (chunk, from, _, number) => {
    if (from === "source" && number === 1) hello ??= Buffer.from(chunk);
    return chunk;
  };
  await through(first);
  for (const inserted of [alert(1, 0), alert(2, 40), alert(1, 100), hello!]) {
    const spoil = (chunk: Buffer): Buffer => Buffer.concat([inserted, chunk]);
    await expectBothFail(after(IN_THE_DATA, "channel", spoil));
    await expectBothFail(after(2 * IN_THE_DATA, "channel", spoil));
  }
}, 120_000);

test("what was said on one channel is not heard on another one", async () => {
  const passed = [0, 0, 0];
  const latest: (Buffer | undefined)[] = [];
  await expectBothFail((chunk, from, _, number) => {
    if (from !== "source" || number === 0) return chunk;
    passed[number]! += chunk.byteLength;
    const other = latest[3 - number];
    latest[number] = Buffer.from(chunk);
    return passed[number]! < IN_THE_DATA ? chunk : (other ?? chunk);
  });
});

test("a channel of another session, said again, is not taken", async () => {
  const recorded = new Map<number, Buffer[]>();
  const recording = await through((chunk, from, _, number) => {
    if (from === "source")
      recorded.set(number, [...(recorded.get(number) ?? []), Buffer.from(chunk)]);
    return chunk;
  });
  expect(recording.errors).toEqual([undefined, undefined]);
  let at = 0;
  await expectBothFail((chunk, from, _, number) => {
    if (from !== "source" || number !== 1) return chunk;
    return recorded.get(number)![at++] ?? Buffer.alloc(0);
  });
  // Its handshake as it is, and the data of the other one, on whichever channel has some.
  let replaced = 0;
  await expectBothFail((chunk, from, _, number) => {
    if (from !== "source" || number === 0 || chunk.byteLength < 4096) return chunk;
    return recorded.get(number)![++replaced] ?? Buffer.alloc(0);
  });
  expect(replaced).toBeGreaterThan(0);
}, 60_000);

test("somebody with the key who asks for new keys and says nothing holds up nobody", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: CHANNELS,
    tls,
    timeouts: { ...timeouts, acceptMs: 10_000 },
  });
  const received = receiver.complete();
  const connection = `s_client -connect ${receiver.endpoint} -tls1_3 -psk ${key} -psk_identity qemu`;
  const command = ["openssl", ...connection.split(" "), "-ciphersuites", "TLS_AES_128_GCM_SHA256"];
  await using client = Bun.spawn(command, {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
    timeout: 20_000,
  });
  const output = client.stdout.getReader();
  let said = "";
  while (!said.includes("TLS_AES_128_GCM_SHA256")) {
    const { value, done } = await output.read();
    if (done) break;
    said += Buffer.from(value).toString();
  }
  expect(said).toContain("TLS_AES_128_GCM_SHA256"); // it is in
  void client.stdin.write("K\n".repeat(20));
  await client.stdin.flush();
  await using sender = await connect({
    endpoint: receiver.endpoint,
    channels: CHANNELS,
    blocks: [block],
    tls,
    timeouts,
  });
  await sender.send();
  await Promise.all([sender.complete(), received]);
  expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
}, 40_000);

test("a sender ends although a receiver never ends its handshake", async () => {
  using silent = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: () => {} },
  });
  const endpoint = `127.0.0.1:${silent.port}`;
  const error = await rejectionOf(
    connect({ endpoint, blocks: [block], tls, timeouts: { ...timeouts, connectMs: 500 } }),
  );
  expect(error).toMatchObject({ code: "ERR_MULTIFD_TIMEOUT_TLS", side: "source" });
});

test("a sender ends although a receiver's handshake goes on, a byte at a time", async () => {
  // A long message of the handshake, of which a byte comes before any wait for it has ended.
  const beginning = Buffer.from([0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb]);
  const timers: ReturnType<typeof setInterval>[] = [];
  using slow = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => {
        socket.write(beginning);
        timers.push(setInterval(() => socket.write(Buffer.of(3)), DRIP_MS));
        setTimeout(() => socket.end(), DRIP_ENDS_MS);
      },
      data: () => {},
    },
  });
  const endpoint = `127.0.0.1:${slow.port}`;
  const connecting = (connectMs: number, signal?: AbortSignal): Promise<unknown> =>
    rejectionOf(connect({ endpoint, blocks: [block], tls, timeouts: { connectMs }, signal }));
  try {
    expect(await connecting(500)).toMatchObject({ code: "ERR_MULTIFD_TIMEOUT_TLS" });
    const start = performance.now();
    const error = await connecting(30_000, AbortSignal.timeout(500));
    expect(error).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
    expect(performance.now() - start).toBeLessThan(DRIP_ENDS_MS / 2);
  } finally {
    timers.forEach(clearInterval);
  }
}, 40_000);

test("a receiver is cancelled although a record of the main connection comes a byte at a time", async () => {
  const abort = new AbortController();
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    tls,
    timeouts,
    signal: abort.signal,
  });
  using proxy = new CutProxy(receiver.endpoint);
  let passed = 0;
  let chunks = 0;
  proxy.filter = (chunk, from, _, number) => {
    if (from === "destination" || number !== 0) return chunk;
    // The end of the handshake, and a record by which the receiver knows the main connection.
    if (chunk[0] === 0x17 && ++chunks === 3) proxy.dripFrom = passed + 8;
    passed += chunk.byteLength;
    return chunk;
  };
  const receiving = rejectionOf(receiver.complete());
  const sending = rejectionOf(
    (async () => {
      await using sender = await connect({
        endpoint: proxy.endpoint,
        channels: 1,
        blocks: [block],
        tls,
        timeouts,
      });
      await sender.send();
      await sender.complete();
    })(),
  );
  while (proxy.dripped < 5) await Bun.sleep(DRIP_MS);
  const start = performance.now();
  abort.abort();
  expect(await receiving).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
  expect(performance.now() - start).toBeLessThan(1000); // as cancelling promises
  await sending;
}, 40_000);
