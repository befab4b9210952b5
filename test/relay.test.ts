import { expect, test } from "bun:test";
import type { Socket } from "node:net";
import { StreamTail } from "../lib/relay/stream_tail.ts";
import {
  connect,
  listen,
  MultifdError,
  PageBitmap,
  RamBlock,
  relay,
  type CompressionMethod,
  type ConnectOptions,
  type ListenOptions,
  type Receiver,
  type RelayOptions,
  type Sender,
  type SyncMode,
} from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { RandomWriters } from "./kit/random_writers.ts";
import { PONG, RawDestination, shut } from "./kit/raw_destination.ts";
import { handshake, mainStream, RawSource } from "./kit/raw_peer.ts";
import { until } from "./kit/threads.ts";
import { testTimeouts } from "./kit/limits.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

interface Chain {
  readonly from?: { channels: number; compression: CompressionMethod };
  readonly to?: { channels: number; compression: CompressionMethod };
  readonly sender: Omit<ConnectOptions, "endpoint">;
  readonly receiver?: Partial<ListenOptions>;
  readonly relay?: Partial<RelayOptions>;
  readonly send?: (sender: Sender) => Promise<void>;
  /** Rounds with pages. Default 1. */
  readonly rounds?: number;
}

const plain = { channels: 2, compression: "none" } as const;

/** A sender, a relay and a receiver in this process, over real sockets. */
async function through(chain: Chain): Promise<Receiver> {
  const { from = plain, to = plain, send = (sender: Sender) => sender.send() } = chain;
  const { rounds = 1 } = chain;
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    timeouts: testTimeouts,
    ...to,
    ...chain.receiver,
  });
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", ...from },
    connect: { endpoint: receiver.endpoint, ...to },
    timeouts: testTimeouts,
    ...chain.relay,
  });
  await using sender = await connect({
    timeouts: testTimeouts,
    ...from,
    ...chain.sender,
    endpoint: relaying.endpoint,
  });
  await send(sender);
  const [sent, { incoming, outgoing }, received] = await Promise.all([
    sender.complete(),
    relaying.complete(),
    receiver.complete(),
  ]);
  expect(incoming.wireBytes).toBe(sent.wireBytes);
  expect(outgoing.wireBytes).toBe(received.wireBytes);
  expect([incoming.normalPages, incoming.zeroPages]).toEqual([sent.normalPages, sent.zeroPages]);
  expect([outgoing.normalPages, outgoing.zeroPages]).toEqual([sent.normalPages, sent.zeroPages]);
  const places = [incoming, outgoing, received];
  expect(places.map((place) => place.rounds)).toEqual([rounds, rounds, rounds]);
  for (const { switchoverMs, elapsedMs } of places) {
    expect(switchoverMs).toBeGreaterThan(0);
    expect(switchoverMs).toBeLessThan(elapsedMs);
  }
  expect(incoming.switchoverMs).toBeCloseTo(outgoing.switchoverMs, -1);
  return receiver;
}

function filled(idstr: string, pages: number, seed: number, pageSize = 4096): RamBlock {
  const block = RamBlock.allocate(idstr, pages * pageSize, { pageSize });
  fillBlock(block, seed);
  return block;
}

const methods: readonly CompressionMethod[] = ["none", "zlib", "zstd", "qpl", "qatzip"];
let turn = 0;
for (const compression of methods) {
  for (const toCompression of ["none", "zstd"] as const) {
    const syncMode: SyncMode = turn % 3 === 1 ? "section" : "round";
    const pageSize = [4096, 16_384, 65_536][turn % 3]!;
    const zeroPageDetection = (["multifd", "legacy", "none"] as const)[(turn * 2) % 3]!;
    const from = { compression, channels: [1, 4, 2][turn % 3]! };
    const to = { compression: toCompression, channels: [3, 1, 5][turn % 3]! };
    turn++;
    const ends = `${compression}/${from.channels} to ${toCompression}/${to.channels}`;
    test(`relay: ${ends}, ${syncMode}, pages of ${pageSize}, zero pages by ${zeroPageDetection}`, async () => {
      const blocks = [
        filled("pc.ram", 301, 1, pageSize),
        filled("a", 1, 2, pageSize),
        filled("vga", 129, 3, pageSize),
      ];
      const receiver = await through({
        from,
        to,
        sender: { blocks, syncMode, zeroPageDetection, verify: true },
        receiver: { pageSize, verify: true },
        relay: { pageSize },
      });
      for (const [index, block] of blocks.entries()) {
        expect(differingPages(block, receiver.blocks[index]!)).toEqual([]);
      }
    });
  }
}

test("relay: no page of an earlier round comes after one of a later round", async () => {
  for (const to of [
    { channels: 4, compression: "zstd" },
    { channels: 1, compression: "none" },
  ] as const) {
    const block = filled("pc.ram", 512, 7);
    const dirty = new PageBitmap(block.pages);
    const receiver = await through({
      from: { channels: 4, compression: "none" },
      to,
      sender: { blocks: [block], verify: true },
      receiver: { verify: true },
      rounds: 26,
      send: async (sender) => {
        await sender.send();
        for (let round = 0; round < 25; round++) {
          for (let page = round % 3; page < block.pages; page += 3) {
            fillPage(block.view(page * 4096, 4096), round % 5 === 0 ? "zero" : "late", round);
            dirty.set(page);
          }
          await sender.queueBitmap(block, dirty);
          await sender.sync();
        }
      },
    });
    expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
  }
});

test("relay: memory that changes all the time arrives as it was in the last, quiet round", async () => {
  await using writers = new RandomWriters({ bytes: 8 << 20, clears: true });
  const block = RamBlock.fromBuffer("heap", writers.buffer);
  const receiver = await through({
    from: { channels: 2, compression: "zlib" },
    to: { channels: 3, compression: "zstd" },
    sender: { blocks: [block], verify: true },
    receiver: { verify: true },
    rounds: 7,
    send: async (sender) => {
      await writers.run();
      await sender.send();
      for (let round = 0; round < 5; round++) {
        await writers.run(); // a round without changes is none
        await sender.queueBitmap(block, writers.bitmap);
        await sender.sync(); // else two channels may have the same page
      }
      await writers.run();
      await writers.pause();
      await sender.queueBitmap(block, writers.bitmap);
    },
  });
  expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
});

test("relay: any number of channels, Unix sockets, no return path", async () => {
  using folder = new TemporaryFolder();
  const block = filled("pc.ram", 400, 9);
  const receiver = await through({
    from: { channels: 5, compression: "none" },
    sender: { blocks: [block], returnPath: false },
    receiver: { endpoint: `unix:${folder.path}/receiver` },
    relay: { listen: { endpoint: `unix:${folder.path}/relay`, channels: "auto" } },
  });
  expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
});

test("relay() says which side does not fit, and both sides hear of it", async () => {
  const block = filled("pc.ram", 64, 3);
  const cases = [
    [{ relay: { listen: { endpoint: "127.0.0.1:0", compression: "zlib" } } }, "PACKET_METHOD"],
    [{ relay: { listen: { endpoint: "127.0.0.1:0", channels: 1 } } }, "HANDSHAKE_ID"],
    [{ relay: { pageSize: 8192 } }, "STREAM_PAGE_SIZE"],
    [{ receiver: { compression: "zstd" } }, "PEER|CHANNEL"],
    [{ receiver: { uuid: "ffffffff-4455-6677-8899-aabbccddeeff" } }, "PEER|CHANNEL"],
    [{ receiver: { machine: "pc-q35-10.0" } }, "PEER|CHANNEL"],
  ] as const;
  for (const [wrong, code] of cases) {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      // A relay that fails before its main connection leaves it waiting for one.
      timeouts: { ...testTimeouts, connectMs: 3000 },
      ...plain,
      ...("receiver" in wrong ? wrong.receiver : {}),
    });
    await using relaying = await relay({
      listen: { endpoint: "127.0.0.1:0", ...plain },
      connect: { endpoint: receiver.endpoint, ...plain },
      timeouts: testTimeouts,
      ...("relay" in wrong ? wrong.relay : {}),
    });
    const relayed = rejectionOf(relaying.complete());
    const received = receiver.complete().catch((error: unknown) => error);
    const sending = async (): Promise<void> => {
      const options = { ...plain, endpoint: relaying.endpoint, timeouts: testTimeouts };
      await using sender = await connect({ ...options, blocks: [block] });
      await sender.send();
      await sender.complete();
    };
    expect(await rejectionOf(sending())).toBeInstanceOf(MultifdError);
    expect((await relayed).code).toMatch(new RegExp(`^ERR_MULTIFD_(${code})`));
    // To a source that does not get that far the receiver is not even connected.
    if (code === "HANDSHAKE_ID") await receiver[Symbol.asyncDispose]();
    else expect(await received).toBeInstanceOf(MultifdError);
  }
});

test("relay() can be cancelled while nobody is there, and refuses impossible options", async () => {
  const connectTo = { endpoint: "127.0.0.1:9" };
  const controller = new AbortController();
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0" },
    connect: connectTo,
    signal: controller.signal,
  });
  const ended = rejectionOf(relaying.complete());
  const start = performance.now();
  controller.abort(new Error("not today"));
  expect((await ended).code).toBe("ERR_MULTIFD_CANCELLED");
  expect(performance.now() - start).toBeLessThan(1000);
  for (const options of [
    { listen: { endpoint: "nonsense" }, connect: connectTo },
    { listen: { endpoint: "127.0.0.1:0", channels: 0 }, connect: connectTo },
    { listen: { endpoint: "127.0.0.1:0" }, connect: { ...connectTo, channels: 256 } },
    { listen: { endpoint: "127.0.0.1:0" }, connect: connectTo, pageSize: 1000 },
    { listen: { endpoint: "127.0.0.1:0" }, connect: connectTo, maxBandwidth: -1 },
    { listen: { endpoint: "127.0.0.1:0" }, connect: connectTo, uuid: "none" },
  ]) {
    const error = await relay(options).catch((reason: unknown) => reason);
    expect(error instanceof RangeError || error instanceof TypeError).toBe(true);
  }
});

test("Relay.complete() rejects when the relay is disposed before everything has gone through", async () => {
  const relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", ...plain },
    connect: { endpoint: "127.0.0.1:1", ...plain },
    timeouts: testTimeouts,
  });
  const failure = rejectionOf(relaying.complete());
  await relaying[Symbol.asyncDispose]();
  expect((await failure).code).toBe("ERR_MULTIFD_STOPPED");
});

test("relay() keeps a channel's failure as the reason, also before the source has announced its blocks", async () => {
  await using receiver = await listen({ endpoint: "127.0.0.1:0", channels: 1 });
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", channels: 1 },
    connect: { endpoint: receiver.endpoint, channels: 1 },
    timeouts: testTimeouts,
  });
  using peer = new RawSource(relaying.endpoint);
  const failure = rejectionOf(relaying.complete());
  const main = await peer.open(mainStream("header"));
  const channel = await peer.open(handshake(0));
  // The destination's answer to the header's ping: the relay is connected on both sides.
  await until("the PONG has come", () => (peer.answers[main]?.length ?? 0) > 0);
  peer.write(channel, new Uint8Array(2000));
  expect(await failure).toMatchObject({ code: "ERR_MULTIFD_PACKET_MAGIC", channel: 0 });
});

/** What relay and sender end with in front of a destination that answers so to the first bytes. */
async function failuresBefore(
  onData: (kind: "main" | "channel", bytes: number, socket: Socket, piece: Buffer) => void,
  onEnd: (main: Socket) => void = () => {},
): Promise<{ relayed: MultifdError; sent: MultifdError }> {
  await using peer = await RawDestination.listen({ pong: false, onData, onEnd });
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", ...plain },
    connect: { endpoint: peer.endpoint, ...plain },
    timeouts: testTimeouts,
  });
  const relayed = rejectionOf(relaying.complete());
  const sending = async (): Promise<void> => {
    await using sender = await connect({
      ...plain,
      endpoint: relaying.endpoint,
      timeouts: testTimeouts,
      blocks: [filled("pc.ram", 64, 3)],
    });
    await sender.send();
    await sender.complete();
  };
  return { sent: await rejectionOf(sending()), relayed: await relayed };
}

test("relay() passes no confirmation on that comes before all has been sent", async () => {
  const answer = Buffer.concat([PONG, shut(0)]);
  const { relayed, sent } = await failuresBefore((kind, bytes, socket, piece) => {
    if (kind === "main" && bytes === piece.byteLength) socket.write(answer);
  });
  expect(relayed).toMatchObject({
    code: "ERR_MULTIFD_PEER",
    side: "source",
    message:
      "Cannot relay migration: the destination ended the migration before all of it was sent",
  });
  // And not that it was confirmed.
  expect(sent).toMatchObject({ code: "ERR_MULTIFD_PEER", reason: { message: relayed.message } });
});

test("relay() passes no confirmation on that is taken back at once", async () => {
  const { relayed, sent } = await failuresBefore(
    (kind, bytes, socket, piece) => {
      if (kind === "main" && bytes === piece.byteLength) socket.write(PONG);
    },
    (main) => main.write(Buffer.concat([shut(0), shut(1)])),
  );
  expect(relayed.code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
  expect(sent).toMatchObject({ code: "ERR_MULTIFD_PEER", reason: { code: relayed.code } });
});

test("StreamTail knows the end of a stream, also behind more than it holds and in single bytes", () => {
  const end = mainStream().subarray(mainStream("end").byteLength);
  const tail = new StreamTail();
  expect(tail.isComplete).toBe(false);
  const elsewhere = new StreamTail(tail.buffer);
  for (const byte of end) {
    expect(elsewhere.isComplete).toBe(false);
    tail.append(Uint8Array.of(byte));
  }
  expect(elsewhere.isComplete).toBe(true);
  const chunk = new Uint8Array(65_537).fill(1);
  for (let bytes = 0; bytes < 70 << 20; bytes += chunk.byteLength) tail.append(chunk);
  expect(elsewhere.isComplete).toBe(false);
  tail.append(end);
  expect(elsewhere.isComplete).toBe(true);
  tail.append(Uint8Array.of(0));
  expect(elsewhere.isComplete).toBe(false);
});
