import { expect, test } from "bun:test";
import {
  connect,
  connectPrimary,
  listen,
  listenSecondary,
  record,
  RamBlock,
  relay,
  type ConnectOptions,
  type Receiver,
} from "../mod.ts";
import { PENDING_CONNECTIONS_MAX } from "../lib/limits.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { handshake, mainStream, packet, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";
import { until } from "./kit/threads.ts";
import { testTimeouts } from "./kit/limits.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

function filled(seed: number): RamBlock {
  const block = RamBlock.allocate("pc.ram", 200 * 4096);
  fillBlock(block, seed);
  return block;
}

async function sendTo(endpoint: string, block: RamBlock, options: Partial<ConnectOptions> = {}) {
  await using sender = await connect({
    timeouts: testTimeouts,
    ...options,
    endpoint,
    blocks: [block],
  });
  await sender.send();
  return await sender.complete();
}

/** An HTTP request, silence, three bytes, nothing at all, and half a handshake. */
async function strangersAt(peer: RawSource): Promise<number> {
  await peer.open(Buffer.from("GET / HTTP/1.1\r\nHost: here\r\n\r\n"));
  await peer.open();
  await peer.open(Uint8Array.of(0x11, 0x22, 0x33));
  peer.end(await peer.open());
  peer.end(await peer.open(handshake(0).subarray(0, 40)));
  return 5;
}

for (const transport of ["tcp", "unix"] as const) {
  test(`Receiver goes on waiting while strangers come, and counts them (${transport})`, async () => {
    using folder = new TemporaryFolder();
    const before = resourcesNow();
    {
      const endpoint = transport === "tcp" ? "127.0.0.1:0" : `unix:${folder.path}/socket`;
      await using receiver = await listen({
        endpoint,
        timeouts: { ...testTimeouts, connectMs: 4000 },
      });
      const done = receiver.complete();
      using peer = new RawSource(receiver.endpoint);
      const count = await strangersAt(peer);
      await until("all are dropped", () => receiver.statistics().strangers === count);
      const block = filled(1);
      await sendTo(receiver.endpoint, block);
      expect((await done).strangers).toBe(count);
      expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
    }
    await expectReleased(before);
  });
}

test("Receiver lets a sender in beside connections that say nothing, with any number of channels", async () => {
  for (const channels of [3, "auto"] as const) {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels,
      // Far longer than the test may take: nobody waits for the silent ones.
      timeouts: { ...testTimeouts, connectMs: channels === "auto" ? 4000 : 60_000 },
    });
    using peer = new RawSource(receiver.endpoint);
    await peer.open();
    await peer.open(Uint8Array.of(0x11));
    const block = filled(2);
    const [sent, received] = await Promise.all([
      sendTo(receiver.endpoint, block, { channels: 3 }),
      receiver.complete(),
    ]);
    expect(received.channels.length).toBe(3);
    expect(received.normalPages).toBe(sent.normalPages);
  }
});

test("Receiver takes one of two senders that come at once, and its memory alone", async () => {
  for (let round = 0; round < 3; round++) {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels: 4,
      timeouts: testTimeouts,
    });
    const blocks = [filled(10 + round), filled(20 + round)];
    const outcomes = await Promise.allSettled([
      receiver.complete(),
      ...blocks.map((block) => sendTo(receiver.endpoint, block, { channels: 4 })),
    ]);
    const [received, ...sent] = outcomes.map(({ status }) => status);
    expect(received).toBe("fulfilled");
    expect(sent.toSorted()).toEqual(["fulfilled", "rejected"]);
    const winner = blocks[sent.indexOf("fulfilled")]!;
    expect(differingPages(winner, receiver.blocks[0]!)).toEqual([]);
  }
});

const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** All that one channel sends, with the pages 1 and 2 filled with `value`. */
function channelOf(id: number, value: number): Uint8Array {
  const payload = new Uint8Array(2 * 4096).fill(value);
  return join(handshake(id), syncPacket(), packet({ payload }), syncPacket());
}

async function listening(channels: number, connectMs: number): Promise<Receiver> {
  return listen({
    endpoint: "127.0.0.1:0",
    channels,
    timeouts: { ...testTimeouts, connectMs },
  });
}

test("Receiver never puts the channels of two senders together: the second one must be gone first", async () => {
  await using receiver = await listening(1, 10_000);
  const done = receiver.complete();
  using first = new RawSource(receiver.endpoint);
  using second = new RawSource(receiver.endpoint);
  await first.open(mainStream());
  await second.open(mainStream());
  // The second sender's channel is here before the first one's.
  const wrong = await second.open(channelOf(0, 66));
  await until("the second main connection is dropped", () => receiver.statistics().strangers === 1);
  await Bun.sleep(200);
  second.end(wrong);
  await first.open(channelOf(0, 11));
  expect((await done).strangers).toBe(2);
  expect(receiver.blocks[0]!.view(4096, 1)[0]).toBe(11);
});

test("Receiver gives up with the id when two channels have it to the end", async () => {
  await using other = await listening(2, 1000);
  const late = rejectionOf(other.complete());
  using both = new RawSource(other.endpoint);
  await both.open(mainStream());
  await both.open(handshake(0));
  await both.open(handshake(0));
  await both.open(handshake(1));
  expect(await late).toMatchObject({
    code: "ERR_MULTIFD_HANDSHAKE_DUPLICATE",
    channel: 0,
    message: "Cannot accept channel: channel id 0 is connected more than once, must be once",
  });
});

test("Receiver takes the next sender when the first one has died while it connected", async () => {
  await using receiver = await listening(2, 10_000);
  const done = receiver.complete();
  using dead = new RawSource(receiver.endpoint);
  const main = await dead.open(mainStream("header"));
  const channel = await dead.open(handshake(1));
  await Bun.sleep(300);
  dead.reset(main);
  dead.reset(channel);
  await until("both are dropped", () => receiver.statistics().strangers === 2);
  const block = filled(5);
  await sendTo(receiver.endpoint, block);
  expect((await done).strangers).toBe(2);
  expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
});

test("Receiver never puts a main connection that has ended together with channels of the next sender", async () => {
  for (const channels of [2, "auto"] as const) {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels,
      timeouts: testTimeouts,
    });
    using peer = new RawSource(receiver.endpoint);
    const alone = await peer.open(mainStream("header"));
    peer.end(alone);
    await Bun.sleep(300); // it is here and has gone
    const block = filled(3);
    const [, received] = await Promise.all([sendTo(receiver.endpoint, block), receiver.complete()]);
    expect(received.strangers).toBe(1);
    expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
  }
});

test("Receiver holds no more connections than its limits, and lets a sender in behind a flood", async () => {
  const before = resourcesNow();
  {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      timeouts: { ...testTimeouts, connectMs: 60_000 },
    });
    const done = receiver.complete();
    using peer = new RawSource(receiver.endpoint);
    const flood = PENDING_CONNECTIONS_MAX + 88;
    for (let batch = 0; batch < flood / 20; batch++) {
      await Promise.all(Array.from({ length: 20 }, () => peer.open()));
    }
    await until("the oldest are dropped", () => receiver.statistics().strangers >= 88);
    const here = resourcesNow().sockets - before.sockets - flood; // the other half is in this process
    expect(here).toBeLessThanOrEqual(PENDING_CONNECTIONS_MAX + 10);
    const block = filled(6);
    await sendTo(receiver.endpoint, block);
    expect((await done).strangers).toBeGreaterThanOrEqual(88);
    expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
  }
  await expectReleased(before);
});

test("record(), relay() and listenSecondary() go on waiting while strangers come", async () => {
  using folder = new TemporaryFolder();
  const timeouts = { ...testTimeouts, connectMs: 4000 };
  const block = filled(7);
  {
    const output = `${folder.path}/guest`;
    await using recorder = await record({ endpoint: "127.0.0.1:0", output, timeouts });
    using peer = new RawSource(recorder.endpoint);
    await strangersAt(peer);
    const [, metadata] = await Promise.all([sendTo(recorder.endpoint, block), recorder.complete()]);
    expect(metadata.blocks.map(({ idstr }) => idstr)).toEqual(["pc.ram"]);
    expect(recorder.statistics().strangers).toBeGreaterThanOrEqual(3);
  }
  {
    await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
    await using relaying = await relay({
      listen: { endpoint: "127.0.0.1:0" },
      connect: { endpoint: receiver.endpoint },
      timeouts,
    });
    using peer = new RawSource(relaying.endpoint);
    await strangersAt(peer);
    const ended = Promise.all([relaying.complete(), receiver.complete()]);
    await sendTo(relaying.endpoint, block);
    const [{ incoming }] = await ended;
    expect(incoming.strangers).toBeGreaterThanOrEqual(3);
    expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
  }
  {
    await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0", timeouts });
    using peer = new RawSource(secondary.endpoint);
    await strangersAt(peer);
    await using primary = await connectPrimary({
      endpoint: secondary.endpoint,
      timeouts: testTimeouts,
      blocks: [block],
    });
    await primary.start();
    await secondary.takeOver();
    expect(differingPages(block, secondary.blocks[0]!)).toEqual([]);
  }
});
