import { existsSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { connect, listen, RamBlock, record, Recording, relay, type MultifdError } from "../mod.ts";
import { written } from "./kit/byte_ends.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { handshake, mainStream, packet, rawBlock, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { tableOf } from "./kit/table_blocks.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { testTimeouts } from "./kit/limits.ts";
import { until } from "./kit/threads.ts";

const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

const PONG = "0002000400000001";
const SHUT_OK = "0001000400000000";

/** The end of a main stream without the sync point that belongs there. */
const endWithoutMarker = written((out) => {
  const writer = new MainStreamWriter(out);
  writer.beginRamSection("end");
  writer.endRamSection();
  writer.end({ devices: [] });
});

const setup = mainStream("setup");
const end = mainStream("whole").subarray(setup.byteLength);

/** What a channel has beyond its packets and the SYNC of the last round, and how the stream ends. */
const leftOvers: readonly [name: string, channel: Uint8Array, main: Uint8Array][] = [
  ["half a packet", join(syncPacket(), packet().subarray(0, 5000)), end],
  ["half a header", join(syncPacket(), packet().subarray(0, 7)), end],
  ["a packet", join(syncPacket(), packet({ normal: [7] })), end],
  ["a packet of zero pages", join(syncPacket(), packet({ normal: [], zero: [1] })), end],
  ["a SYNC more than markers", join(syncPacket(), syncPacket()), end],
  ["pages that no SYNC covers", packet({ normal: [7] }), endWithoutMarker],
  ["half a packet and an END without marker", packet().subarray(0, 5000), endWithoutMarker],
  ["a SYNC without marker", syncPacket(), endWithoutMarker],
];

/** Whoever takes a destination's place, for one migration with one channel. */
interface Taker extends AsyncDisposable {
  readonly endpoint: string;
  complete(): Promise<unknown>;
}

const takers: readonly [name: string, make: (folder: string) => Promise<Taker>][] = [
  ["a receiver", () => listen({ endpoint: "127.0.0.1:0", channels: 1, timeouts: testTimeouts })],
  [
    "a recorder",
    (folder) =>
      record({
        endpoint: "127.0.0.1:0",
        channels: 1,
        output: `${folder}/vm.rec`,
        timeouts: testTimeouts,
      }),
  ],
  ["a relay", makeRelay],
];

/** A relay with a receiver behind it, which must fail too. */
async function makeRelay(): Promise<Taker> {
  const receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: testTimeouts,
    capture: true,
  });
  const relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", channels: 1 },
    connect: { endpoint: receiver.endpoint, channels: 1 },
    timeouts: testTimeouts,
  });
  const received = receiver.complete();
  received.catch(() => {}); // looked at below, when the relay has ended
  return {
    endpoint: relaying.endpoint,
    complete: async () => {
      const [there, here] = await Promise.allSettled([received, relaying.complete()]);
      expect(there.status).toBe(here.status);
      if (here.status === "rejected") throw here.reason;
    },
    [Symbol.asyncDispose]: async () => {
      await relaying[Symbol.asyncDispose]();
      await receiver[Symbol.asyncDispose]();
    },
  };
}

for (const [who, make] of takers) {
  describe(who, () => {
    for (const [what, channel, main] of leftOvers) {
      test(`confirms nothing when a channel is left with ${what}`, async () => {
        using folder = new TemporaryFolder();
        await using taker = await make(folder.path);
        using peer = new RawSource(taker.endpoint);
        const failure = rejectionOf(taker.complete());
        const first = await peer.open(setup);
        const start = join(handshake(0), syncPacket(), packet({ normal: [1, 2] }));
        await peer.open(join(start, channel));
        const answer = (): string => peer.answers[first]?.toString("hex") ?? "";
        await until("the PONG has come", () => answer().startsWith(PONG));
        // What the channel has beyond its SYNC is there before the main stream ends.
        await Bun.sleep(100);
        peer.write(first, main);
        const error: MultifdError = await failure;
        expect(error).toMatchObject({ code: "ERR_MULTIFD_PACKET_LEFT_OVER", channel: 0 });
        expect(answer()).not.toContain(SHUT_OK);
        expect(existsSync(`${folder.path}/vm.rec`)).toBe(false);
      });
    }

    // Sources up to QEMU 8.2 may send pages and SYNC as one packet, and the second one empty.
    const empty = packet({ normal: [], payload: new Uint8Array(0) });
    for (const [what, rest] of [
      ["nothing left", new Uint8Array(0)],
      ["an empty packet behind its last SYNC", empty],
    ] as const) {
      test(`confirms the same stream with ${what}`, async () => {
        using folder = new TemporaryFolder();
        await using taker = await make(folder.path);
        using peer = new RawSource(taker.endpoint);
        const done = taker.complete();
        const first = await peer.open(setup);
        await peer.open(
          join(handshake(0), syncPacket(), packet({ normal: [1, 2] }), syncPacket(), rest),
        );
        peer.write(first, end);
        const answer = (): string => peer.answers[first]?.toString("hex") ?? "";
        await until("it is confirmed", () => answer().endsWith(SHUT_OK));
        peer.end(first);
        await done;
        expect(answer()).toBe(PONG + SHUT_OK);
      });
    }
  });
}

for (const returnPath of [true, false]) {
  const path = returnPath ? "with" : "without";
  test(`a recorder keeps nothing of a source that goes in the middle of the devices, ${path} return path`, async () => {
    using folder = new TemporaryFolder();
    await using recorder = await record({
      endpoint: "127.0.0.1:0",
      channels: 1,
      output: folder.file("vm.rec"),
      timeouts: testTimeouts,
    });
    using peer = new RawSource(recorder.endpoint);
    const failure = rejectionOf(recorder.complete());
    const stream = written((out) => {
      const writer = new MainStreamWriter(out);
      writer.header({ machine: "raw", capabilities: [] });
      if (returnPath) writer.openReturnPath();
      writer.beginRamSection("start");
      writer.blockList(tableOf(rawBlock));
      writer.syncMarker();
      writer.endRamSection();
      writer.beginRamSection("end");
      writer.syncMarker();
      writer.endRamSection();
      // A FULL section that says nothing of its end.
      writer.verbatim(Uint8Array.of(4, 0, 0, 0, 9, 3, 0x64, 0x65, 0x76, 0, 0, 0, 0, 0, 0, 0, 1, 5));
    });
    const main = await peer.open(stream);
    await peer.open(join(handshake(0), syncPacket(), packet(), syncPacket()));
    await Bun.sleep(100);
    peer.end(main);
    expect((await failure).code).toBe("ERR_MULTIFD_STREAM_ENDED");
    expect(existsSync(folder.file("vm.rec"))).toBe(false);
  });
}

test("a receiver confirms nothing when the main stream goes on behind its end", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: testTimeouts,
  });
  using peer = new RawSource(receiver.endpoint);
  const failure = rejectionOf(receiver.complete());
  const main = await peer.open(join(mainStream(), Uint8Array.of(0)));
  await peer.open(join(handshake(0), syncPacket(), syncPacket()));
  expect((await failure).code).toBe("ERR_MULTIFD_STREAM_ENDED");
  expect(peer.answers[main]?.toString("hex")).not.toContain(SHUT_OK);
});

describe("a source that synchronises after each section", () => {
  for (const [compression, pages] of [
    ["none", 2],
    ["none", 2048],
    ["zstd", 16_384],
  ] as const) {
    test(`reaches a receiver that was told nothing of it: ${compression}, ${pages} pages`, async () => {
      const block = RamBlock.allocate("pc.ram", pages * 4096);
      fillBlock(block, 3);
      const both = { compression, timeouts: testTimeouts };
      await using receiver = await listen({ endpoint: "127.0.0.1:0", ...both });
      await using sender = await connect({
        ...both,
        endpoint: receiver.endpoint,
        blocks: [block],
        syncMode: "section",
      });
      await sender.send();
      await Promise.all([sender.complete(), receiver.complete()]);
      expect(differingPages(block, receiver.blocks[0]!)).toEqual([]);
    });
  }

  test("is recorded, and the recording says so to whoever restores it", async () => {
    using folder = new TemporaryFolder();
    const output = `${folder.path}/vm.rec`;
    const block = RamBlock.allocate("pc.ram", 300 * 4096);
    fillBlock(block, 3);
    await using recorder = await record({
      endpoint: "127.0.0.1:0",
      output,
      timeouts: testTimeouts,
    });
    await using sender = await connect({
      endpoint: recorder.endpoint,
      blocks: [block],
      // No version in it that would tell the mode.
      machine: "microvm",
      syncMode: "section",
      timeouts: testTimeouts,
    });
    await sender.send();
    await Promise.all([sender.complete(), recorder.complete()]);
    using recording = await Recording.open(output);
    expect(differingPages(block, recording.blocks[0]!)).toEqual([]);
    expect(recording.state).toMatchObject({ machine: "microvm", syncMode: "section" });
  });
});
