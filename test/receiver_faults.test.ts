import { beforeAll, expect, test } from "bun:test";
import {
  CodecError,
  connect,
  listen,
  memoryDevice,
  RamBlock,
  type ListenOptions,
  type Receiver,
} from "../mod.ts";
import type { MultifdError } from "../mod.ts";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { written } from "./kit/byte_ends.ts";
import { rejectionOf } from "./kit/errors.ts";
import { LimitMs } from "./kit/limits.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { handshake, mainStream, packet, RawSource, rawBlock, syncPacket } from "./kit/raw_peer.ts";
import { expectReleased, resourcesNow, settledResources } from "./kit/resources.ts";
import { until } from "./kit/threads.ts";
import { transfer } from "./kit/transfer.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

/** For failures that need no limit: a busy machine must not run into one before. */
const timeouts = { acceptMs: 15_000, connectMs: 15_000, idleMs: 15_000, stallMs: 15_000 } as const;
/** For those that are found by a limit. */
const hasty = { ...timeouts, connectMs: 1000, stallMs: 1000 } as const;
/** For those that are found when nobody has come. */
const impatient = { ...hasty, acceptMs: 300 } as const;

/** A whole transfer, to show that the process can go on. */
async function expectTransfer(): Promise<void> {
  const block = RamBlock.allocate("pc.ram", 200 * 4096);
  fillBlock(block, 5);
  const { blocks } = await transfer({ both: { compression: "zstd" }, sender: { blocks: [block] } });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
}

beforeAll(async () => {
  await expectTransfer(); // the runtime starts threads of its own the first time
});

/** One channel up to and including the setup sync. */
const begin = (): Uint8Array => join(handshake(0), syncPacket());

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/**
 * Lets `source` talk to a receiver and returns the error it ends with, after checking that nothing
 * is left of the receiver.
 */
async function failureOf(
  source: (peer: RawSource, receiver: Receiver) => Promise<void>,
  options: Partial<ListenOptions> = {},
): Promise<MultifdError> {
  const before = resourcesNow();
  let error: MultifdError | undefined;
  {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels: 1,
      timeouts,
      ...options,
    });
    using peer = new RawSource(receiver.endpoint);
    const failure = rejectionOf(receiver.complete());
    failure.catch(() => {}); // when the source itself fails, its error is the one to see
    await source(peer, receiver);
    error = await failure;
  }
  await expectReleased(before);
  expect(error).toMatchObject({ side: "destination" });
  return error;
}

test("a raw source that keeps to the protocol is received, with SYNC packets that carry pages too", async () => {
  await using receiver = await listen({ endpoint: "127.0.0.1:0", channels: 1, timeouts });
  using peer = new RawSource(receiver.endpoint);
  const done = receiver.complete();
  const main = await peer.open(mainStream());
  const old = packet({ normal: [3], zero: [9], change: (view) => view.setUint32(8, 1) });
  await peer.open(join(begin(), packet({ normal: [1, 2] }), packet({ normal: [9] }), old));
  const statistics = await done;
  expect(statistics).toMatchObject({ normalPages: 4, zeroPages: 1 });
  expect(statistics.channels[0]?.syncs).toBe(2);
  const [block] = receiver.blocks;
  const firstBytes = [0, 1, 2, 3, 9].map((page) => block?.view(page * 4096, 4096)[17]);
  expect(firstBytes).toEqual([0, 1, 2, 3, 0]);
  const shut = "00020004000000010001000400000000";
  await until("PONG and SHUT have come", () => peer.answers[main]?.toString("hex") === shut);
});

test("a packet may come in pieces with pauses in it, as long as none is beyond the limit", async () => {
  // Pauses of more than the tick after which a thread comes back from the kernel, with or without bytes.
  const pauseMs = 150;
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: { ...timeouts, stallMs: 8 * pauseMs },
  });
  using peer = new RawSource(receiver.endpoint);
  const done = receiver.complete();
  await peer.open(mainStream());
  const bytes = join(packet({ normal: [1, 2, 7] }), syncPacket());
  const channel = await peer.open(begin());
  const cuts = [0, 500, 1344, 1345, 1344 + 4096, 1344 + 3 * 4096 - 1, 1344 + 3 * 4096 + 10];
  for (const [index, cut] of cuts.entries()) {
    await Bun.sleep(pauseMs);
    peer.write(channel, bytes.subarray(cut, cuts[index + 1] ?? bytes.byteLength));
  }
  expect(await done).toMatchObject({ normalPages: 3 });
  const firstBytes = [0, 1, 2, 7].map((page) => receiver.blocks[0]?.view(page * 4096, 4096)[17]);
  expect(firstBytes).toEqual([0, 1, 2, 7]);
});

const cases: readonly [
  name: string,
  code: string,
  source: (peer: RawSource, receiver: Receiver) => Promise<unknown>,
  options?: Partial<ListenOptions>,
][] = [
  // Connecting.
  ["nobody connects", "TIMEOUT_ACCEPT", async () => {}, { timeouts: { ...hasty, acceptMs: 300 } }],
  ["a connection says nothing", "TIMEOUT_ACCEPT", (peer) => peer.open(), { timeouts: impatient }],
  ["only the main connection comes", "TIMEOUT_CONNECT", (peer) => peer.open(mainStream("header"))],
  ["only a channel comes", "TIMEOUT_CONNECT", (peer) => peer.open(handshake(0))],
  [
    "there are too few channels",
    "TIMEOUT_CONNECT",
    async (peer) => {
      await peer.open(mainStream());
      await peer.open(begin());
    },
    { channels: 2 },
  ],
  [
    "there are too many channels",
    "HANDSHAKE_ID",
    async (peer) => {
      await peer.open(handshake(1));
      await peer.open(handshake(0));
    },
  ],
  [
    "three bytes come and no more",
    "TIMEOUT_ACCEPT",
    (peer) => peer.open(Uint8Array.of(0x11, 0x22, 0x33)),
    { timeouts: impatient },
  ],
  [
    "a handshake stalls",
    "TIMEOUT_ACCEPT",
    (peer) => peer.open(handshake(0).subarray(0, 63)),
    { timeouts: impatient },
  ],
  [
    "a handshake is cut off and nobody else comes",
    "TIMEOUT_ACCEPT",
    async (peer) => {
      peer.end(await peer.open(handshake(0).subarray(0, 63)));
    },
    { timeouts: impatient },
  ],
  [
    "a connection begins with something else and nobody else comes",
    "TIMEOUT_ACCEPT",
    (peer) => peer.open(Buffer.from("GET / HTTP/1.1\r\n")),
    { timeouts: impatient },
  ],
  [
    "a handshake has another version",
    "HANDSHAKE_VERSION",
    (peer) => peer.open(handshake(0, (v) => v.setUint32(4, 2))),
  ],
  [
    "a handshake has another uuid",
    "HANDSHAKE_UUID",
    (peer) => peer.open(handshake(0, (v) => v.setUint8(8, 1))),
  ],
  ["a channel id equals the number of channels", "HANDSHAKE_ID", (peer) => peer.open(handshake(1))],
  [
    "two channels have one id",
    "HANDSHAKE_DUPLICATE",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(handshake(0));
    },
    { channels: 2, timeouts: hasty },
  ],
  [
    "channel ids have a gap and their number is open",
    "LIMIT_CHANNELS",
    async (peer) => {
      await peer.open(handshake(1));
      await Bun.sleep(200); // identified before the main connection completes the set
      await peer.open(mainStream("header"));
    },
    { channels: "auto" },
  ],
  [
    "two main connections come and no channel",
    "TIMEOUT_CONNECT",
    async (peer) => {
      await peer.open(mainStream("header"));
      await peer.open(mainStream("header"));
    },
  ],

  // Main stream.
  [
    "the main stream has another version",
    "STREAM_VERSION",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(join(mainStream("header").subarray(0, 4), Uint8Array.of(0, 0, 0, 4)));
    },
  ],
  [
    "the main stream stalls in its header",
    "TIMEOUT_STALL",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("header").subarray(0, 9));
    },
  ],
  [
    "a block is larger than the limit",
    "LIMIT_RAM",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { ramBytesMax: rawBlock.bytes - 1 },
  ],
  [
    "a block of an exabyte is announced",
    "LIMIT_RAM",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(
        mainStream("setup", (out) => {
          out.u64(2 ** 50 + 4);
          out.countedString("pc.ram");
          out.u64(2 ** 50);
        }),
      );
    },
  ],
  [
    "a given block is not announced",
    "STREAM_BLOCKS",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { blocks: [RamBlock.allocate("pc.ram", rawBlock.bytes), RamBlock.allocate("pc.rom", 4096)] },
  ],
  [
    "a block is announced that was not given",
    "STREAM_BLOCKS",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { blocks: [RamBlock.allocate("pc.rom", 4096)] },
  ],
  [
    "a given block has another length",
    "STREAM_BLOCKS",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { blocks: [RamBlock.allocate("pc.ram", 4096)] },
  ],
  [
    "the machine is another one",
    "STREAM_MACHINE",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { machine: "pc-q35-10.0" },
  ],
  [
    "the page size is another one",
    "STREAM_PAGE_SIZE",
    async (peer) => {
      await peer.open(handshake(0));
      await peer.open(mainStream("setup"));
    },
    { pageSize: 8192 },
  ],

  // Channel.
  [
    "a packet has another magic",
    "PACKET_MAGIC",
    (peer) => full(peer, packet({ change: (v) => v.setUint8(0, 0) })),
  ],
  [
    "a packet has another version",
    "PACKET_VERSION",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(4, 7) })),
  ],
  [
    "a packet has too large a capacity",
    "PACKET_PAGES_ALLOC",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(12, 4096) })),
  ],
  [
    "a packet has too many normal pages",
    "PACKET_NORMAL_PAGES",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(16, 129) })),
  ],
  [
    "a packet has too many zero pages",
    "PACKET_ZERO_PAGES",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(32, 127) })),
  ],
  [
    "a packet has too long a payload",
    "PACKET_NEXT_PACKET_SIZE",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(20, 0xffff_ffff) })),
  ],
  [
    "a packet names an unknown block",
    "PACKET_RAMBLOCK",
    (peer) => full(peer, packet({ change: (v) => v.setUint8(64, 0x71) })),
  ],
  [
    "a packet has an offset behind the block",
    "PACKET_OFFSET",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(324, rawBlock.bytes) })),
  ],
  [
    "a packet has an unaligned offset",
    "PACKET_OFFSET",
    (peer) => full(peer, packet({ change: (v) => v.setUint32(324, 512) })),
  ],
  [
    "a packet is of another method",
    "PACKET_METHOD",
    (peer) => full(peer, packet({ methodFlag: 4 })),
  ],
  [
    "a packet with pages comes before the block list",
    "PACKET_RAMBLOCK",
    async (peer) => {
      await peer.open(join(handshake(0), packet()));
      await peer.open(mainStream("header"));
    },
  ],
  [
    "a channel stalls in a header",
    "TIMEOUT_STALL",
    (peer) => full(peer, packet().subarray(0, 500)),
  ],
  [
    "a channel stalls in a payload",
    "TIMEOUT_STALL",
    (peer) => full(peer, packet().subarray(0, 1344 + 4095)),
  ],
  ["a channel sends nothing more", "TIMEOUT_SYNC", (peer) => full(peer, packet(), "whole")],
  [
    "a channel ends before its sync",
    "CHANNEL_ENDED",
    async (peer) => {
      await peer.open(mainStream("whole"));
      peer.end(await peer.open(join(begin(), packet())));
    },
  ],
  [
    "a channel is reset",
    "CHANNEL",
    async (peer) => {
      await peer.open(mainStream("part"));
      const channel = await peer.open(join(begin(), packet(), packet().subarray(0, 100)));
      await Bun.sleep(300);
      peer.reset(channel);
    },
  ],
  [
    "the main connection stalls in a section",
    "TIMEOUT_STALL",
    async (peer) => {
      await peer.open(mainStream("part").subarray(0, -2));
      await peer.open(join(begin(), packet(), syncPacket()));
    },
  ],
  [
    "all connections fall silent between packets and sections",
    "TIMEOUT_STALL",
    (peer) => full(peer, packet()),
    { timeouts: { ...timeouts, idleMs: 600 } },
  ],
  [
    "the main connection never reaches a sync point",
    "TIMEOUT_SYNC",
    async (peer) => {
      await peer.open(mainStream("setup"));
      await peer.open(join(begin(), packet(), syncPacket()));
    },
    { timeouts: { ...timeouts, idleMs: 600 } },
  ],

  // Payload.
  [
    "a zlib payload is no zlib",
    "CODEC",
    (peer) => full(peer, packet({ methodFlag: 2, payload: new Uint8Array(600).fill(0x99) })),
    { compression: "zlib" },
  ],
  [
    "a zstd payload is no zstd",
    "CODEC",
    (peer) => full(peer, packet({ methodFlag: 4, payload: new Uint8Array(600).fill(0x99) })),
    { compression: "zstd" },
  ],
  [
    "a zstd payload ends early",
    "CODEC",
    (peer) =>
      full(
        peer,
        packet({ methodFlag: 4, payload: Bun.zstdCompressSync(new Uint8Array(4096).fill(3)) }),
      ),
    { compression: "zstd" },
  ],
  [
    "a zstd payload gives more than its pages",
    "CODEC",
    (peer) =>
      full(
        peer,
        packet({ methodFlag: 4, payload: Bun.zstdCompressSync(new Uint8Array(3 * 4096).fill(3)) }),
      ),
    { compression: "zstd" },
  ],
];

/** Everything up to the setup sync, then `rest` on the channel; the main stream goes on to `last`. */
async function full(
  peer: RawSource,
  rest: Uint8Array,
  last: "part" | "whole" = "part",
): Promise<void> {
  await peer.open(mainStream(last));
  await peer.open(join(begin(), rest));
}

for (const [name, code, source, options] of cases) {
  test(`Receiver.complete() rejects when ${name}`, async () => {
    const error = await failureOf(async (peer, receiver) => void (await source(peer, receiver)), {
      ...(code.startsWith("TIMEOUT") ? { timeouts: hasty } : {}),
      ...options,
    });
    expect(error.code).toStartWith(`ERR_MULTIFD_${code}`);
    if (code === "CODEC") expect(error).toBeInstanceOf(CodecError);
    expect(error.message).toMatch(/^Cannot [a-z]+/);
    expect(error.message).not.toEndWith(".");
  });
}

/** Bytes of a channel in one session, and the places where something in it ends. */
const channelBytes = join(begin(), packet({ normal: [1, 2], zero: [3] }), syncPacket());
const packetAt = 64 + 1344;
const channelCuts = [
  0,
  1,
  4,
  8,
  24,
  32,
  63,
  64,
  67,
  75,
  76,
  100,
  packetAt - 1,
  packetAt,
  packetAt + 1,
];
for (const at of [11, 12, 64, 320, 343, 1343, 1344, 1345, 1344 + 4096, 1344 + 8191, 1344 + 8192]) {
  channelCuts.push(packetAt + at);
}
channelCuts.push(channelBytes.byteLength - 1);

for (const cut of channelCuts) {
  test(`Receiver.complete() rejects when a channel ends after ${cut} bytes`, async () => {
    // Before the end of its handshake it is nobody; at the end of a packet its SYNC is missing.
    const code = cut < 64 ? "ERR_MULTIFD_TIMEOUT_CONNECT" : "ERR_MULTIFD_CHANNEL_ENDED";
    const error = await failureOf(
      async (peer) => {
        await peer.open(mainStream("whole"));
        peer.end(await peer.open(channelBytes.subarray(0, cut)));
      },
      code.includes("TIMEOUT") ? { timeouts: hasty } : {},
    );
    expect(error.code).toBe(code);
  });
}

const mainBytes = mainStream("whole");
const descriptionAt = Buffer.from(mainBytes).lastIndexOf(0x06);
for (const cut of [
  4,
  8,
  9,
  16,
  17,
  22,
  30,
  40,
  80,
  mainStream("setup").byteLength,
  descriptionAt - 1,
  descriptionAt + 5,
  mainBytes.byteLength - 1,
]) {
  test(`Receiver.complete() rejects when the main connection ends after ${cut} bytes`, async () => {
    const error = await failureOf(async (peer) => {
      await peer.open(channelBytes);
      peer.end(await peer.open(mainBytes.subarray(0, cut)));
    });
    expect(error.code).toBe("ERR_MULTIFD_CHANNEL_ENDED");
  });
}

test("Receiver.complete() forgets connections that end before they say who they are", async () => {
  await using receiver = await listen({ endpoint: "127.0.0.1:0", channels: 1, timeouts: hasty });
  using peer = new RawSource(receiver.endpoint);
  const done = receiver.complete();
  for (let probe = 0; probe < 5; probe++) peer.end(await peer.open());
  peer.reset(await peer.open());
  // A probe must not start the clock for the migration's own connections.
  await Bun.sleep(hasty.connectMs + 300);
  await peer.open(mainStream());
  await peer.open(join(begin(), packet(), syncPacket()));
  expect((await done).normalPages).toBe(2);
});

test("Receiver lets a sender in although strangers have taken all descriptors", async () => {
  const child = Bun.spawn(
    ["sh", "-c", `ulimit -n 48; exec "$0" "$@"`, bun, "test/fixtures/receive_once.ts"],
    {
      cwd: repositoryRoot,
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  const timer = setTimeout(() => child.kill("SIGKILL"), LimitMs.migration);
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const endpoint = (await lines.read()).value?.trim() ?? "";
  await Bun.sleep(1500); // its threads need descriptors to read their programs, and have no more then
  using strangers = new RawSource(endpoint);
  for (let probe = 0; probe < 60; probe++) await strangers.open().catch(() => {});
  using peer = new RawSource(endpoint);
  await peer.open(mainStream());
  await peer.open(join(begin(), syncPacket()));
  const report = JSON.parse((await lines.read()).value ?? "") as {
    code: string;
    strangers: number;
  };
  // Those that found no room at all, and the last that were still waiting, in whichever order.
  expect(report.code).toBe("ok");
  expect(report.strangers).toBeGreaterThan(10);
  expect(await child.exited).toBe(0);
  clearTimeout(timer);
});

test("Receiver.complete() does not wait for device state for as long as pages keep coming", async () => {
  const limits = { ...timeouts, idleMs: 1000 };
  const device = memoryDevice({ idstr: "dev", buffer: new SharedArrayBuffer(4096) });
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: limits,
    devices: [device],
  });
  using peer = new RawSource(receiver.endpoint);
  const failure = rejectionOf(receiver.complete());
  const [setup, whole] = [mainStream("setup"), mainStream("whole")];
  const switchover = written((out) => new MainStreamWriter(out).switchoverStart());
  await peer.open(join(setup, switchover, whole.subarray(setup.byteLength)));
  const channel = await peer.open(join(begin(), syncPacket()));
  const trickle = setInterval(() => peer.write(channel, packet({ normal: [], zero: [3] })), 100);
  try {
    const { code, message } = await failure;
    expect(code).toBe("ERR_MULTIFD_TIMEOUT_DEVICE");
    expect(message).toContain("device dev instance 0: buffer 0 did not come");
  } finally {
    clearInterval(trickle);
  }
});

test("Receiver.complete() rejects when the receiver is disposed before everything has come", async () => {
  const receiver = await listen({ endpoint: "127.0.0.1:0", channels: 1, timeouts });
  using peer = new RawSource(receiver.endpoint);
  const failure = rejectionOf(receiver.complete());
  await peer.open(mainStream("part"));
  await peer.open(join(begin(), packet()));
  await receiver.announced();
  await receiver[Symbol.asyncDispose]();
  expect((await failure).code).toBe("ERR_MULTIFD_STOPPED");
});

test("Receiver.complete() resolves when the receiver is disposed as soon as the sender knows", async () => {
  const block = RamBlock.allocate("pc.ram", 16 * 4096);
  for (let round = 0; round < 25; round++) {
    const receiver = await listen({ endpoint: "127.0.0.1:0", channels: 1, timeouts });
    const done = receiver.complete();
    await using sender = await connect({
      endpoint: receiver.endpoint,
      channels: 1,
      blocks: [block],
      timeouts,
    });
    await sender.send();
    await sender.complete();
    await receiver[Symbol.asyncDispose]();
    expect((await done).ramBytes).toBe(block.bytes);
  }
});

test("Receiver.complete() gives the reason of a refusal, whatever the source does meanwhile", async () => {
  const error = await failureOf(
    async (peer) => {
      await peer.open(mainStream("setup"));
      const channel = await peer.open(begin());
      await Bun.sleep(200); // it is refused a second later
      peer.reset(channel);
    },
    { machine: "other" },
  );
  expect(error.code).toBe("ERR_MULTIFD_STREAM_MACHINE");
});

test("Receiver.complete() tells of a cancel, also while the source is being refused", async () => {
  const abort = new AbortController();
  const error = await failureOf(
    async (peer) => {
      await peer.open(handshake(1)); // one too high; refused a second later
      await Bun.sleep(200);
      abort.abort(new Error("enough"));
    },
    { signal: abort.signal },
  );
  expect(error.code).toBe("ERR_MULTIFD_CANCELLED");
});

test("Receiver tells the source that its data could not be used", async () => {
  await failureOf(async (peer) => {
    const main = await peer.open(mainStream("part"));
    await peer.open(begin());
    const answer = (): string | undefined => peer.answers[main]?.toString("hex");
    await until("the PONG has come", () => answer() === "0002000400000001");
    peer.write(main, Uint8Array.of(0x42));
    await until("the failure has come", () => answer() !== "0002000400000001");
    expect(answer()).toBe("00020004000000010001000400000001");
  });
});

test("listen() fails at once on a port or socket that is in use, and the first one goes on", async () => {
  using folder = new TemporaryFolder();
  for (const endpoint of ["127.0.0.1:0", "[::1]:0", `unix:${folder.path}/socket`]) {
    await using receiver = await listen({ endpoint, channels: 1, timeouts });
    const before = await settledResources();
    const error = await rejectionOf(listen({ endpoint: receiver.endpoint, channels: 1 }));
    expect(error).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "EADDRINUSE" });
    await expectReleased(before);
    using peer = new RawSource(receiver.endpoint);
    const done = receiver.complete();
    await peer.open(mainStream());
    await peer.open(join(begin(), syncPacket()));
    await done;
  }
});

test.skipIf(Bun.spawnSync(["unshare", "--net", "true"]).exitCode !== 0)(
  "listen() leaves a Unix socket to its listener in another network namespace (needs unshare)",
  async () => {
    using folder = new TemporaryFolder();
    const endpoint = `unix:${folder.path}/socket`;
    await using receiver = await listen({ endpoint, channels: 1, timeouts });
    const done = receiver.complete();
    const script = `import { listen } from "./mod.ts";
      const error = await listen({ endpoint: ${JSON.stringify(endpoint)} }).catch((e) => e);
      console.log(error.errno ?? "it listens");
      process.exit(0);`;
    const other = Bun.spawn(["unshare", "--net", bun, "-e", script], {
      cwd: repositoryRoot,
      stdout: "pipe",
      timeout: 30_000,
    });
    expect((await new Response(other.stdout).text()).trim()).toBe("EADDRINUSE");
    using peer = new RawSource(endpoint);
    await peer.open(mainStream());
    await peer.open(join(begin(), syncPacket()));
    await done;
  },
);

test("listen() can use an endpoint again as soon as its receiver has ended", async () => {
  using folder = new TemporaryFolder();
  for (const endpoint of ["127.0.0.1:0", `unix:${folder.path}/socket`]) {
    let again = endpoint;
    for (let round = 0; round < 3; round++) {
      await using receiver = await listen({ endpoint: again, channels: 1, timeouts });
      again = receiver.endpoint;
      using peer = new RawSource(again);
      const done = receiver.complete();
      await peer.open(mainStream());
      await peer.open(join(begin(), syncPacket()));
      expect((await done).ramBytes).toBe(rawBlock.bytes);
    }
  }
});

test("listen() names the reason when an address is not this machine's", async () => {
  const error = await rejectionOf(listen({ endpoint: "192.0.2.1:4444" }));
  expect(error).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "EADDRNOTAVAIL" });
  const missing = await rejectionOf(listen({ endpoint: "unix:/nonexistent/folder/socket" }));
  expect(missing).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "ENOENT" });
});

test("a process that has seen all these failures runs the next transfer", expectTransfer);
