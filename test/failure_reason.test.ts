/**
 * The reason of a failure on both sides: a receiver that refuses or fails says why, and a sender of
 * this library ends with that.
 *
 * @module
 */
import { expect, test } from "bun:test";
import type { Socket } from "node:net";
import {
  connect,
  listen,
  memoryDevice,
  PeerError,
  RamBlock,
  relay,
  type ConnectOptions,
  type ListenOptions,
  type MultifdError,
} from "../mod.ts";
import { sendReturnMessage } from "../lib/wire/return_path.ts";
import { rejectionOf } from "./kit/errors.ts";
import { written } from "./kit/byte_ends.ts";
import { testTimeouts } from "./kit/limits.ts";
import { fillPage } from "./kit/page_content.ts";
import { PONG, RawDestination, shut } from "./kit/raw_destination.ts";
import { handshake, mainStream, RawSource } from "./kit/raw_peer.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { until } from "./kit/threads.ts";

/** More than sockets hold, so that a sender is in the middle of it when the receiver fails. */
const block = RamBlock.allocate("pc.ram", 48 * 1_048_576);
for (let page = 0; page < block.pages; page++)
  fillPage(block.view(page * 4096, 4096), "random", page);
const small = RamBlock.allocate("pc.ram", 64 * 4096);
for (let page = 0; page < small.pages; page++) fillPage(small.view(page * 4096, 4096), "random", 1);

interface Failures {
  readonly received: MultifdError;
  readonly sent: MultifdError;
}

/** What both sides end with. */
async function failuresOf(
  sender: Partial<ConnectOptions>,
  receiver: Partial<ListenOptions>,
  endpoint = "127.0.0.1:0",
): Promise<Failures> {
  await using receiving = await listen({ endpoint, timeouts: testTimeouts, ...receiver });
  const received = rejectionOf(receiving.complete());
  const sent = await rejectionOf(
    (async () => {
      await using sending = await connect({
        endpoint: receiving.endpoint,
        timeouts: testTimeouts,
        blocks: [block],
        ...sender,
      });
      await sending.send();
      await sending.complete();
    })(),
  );
  return { sent, received: await received };
}

const device = memoryDevice({ idstr: "dev", buffer: new SharedArrayBuffer(100_000) });

const uuid = "00000000-0000-4000-8000-00000000000";
const connectMs = { ...testTimeouts, connectMs: 1500 };
const full = new Error("ENOSPC: no space left on device, write");

const cases: readonly [
  name: string,
  says: RegExp,
  code: string,
  sender: Partial<ConnectOptions>,
  receiver: Partial<ListenOptions>,
][] = [
  [
    "compression",
    /compression is zstd, must be zlib/,
    "ERR_MULTIFD_PACKET_METHOD",
    { compression: "zstd" },
    { compression: "zlib" },
  ],
  [
    "no compression here",
    /compression is zlib, must be none/,
    "ERR_MULTIFD_PACKET_METHOD",
    { compression: "zlib", blocks: [small] },
    {},
  ],
  [
    "fewer channels",
    /2 of 3 channels came within 1500 ms; both sides must use the same number of channels/,
    "ERR_MULTIFD_TIMEOUT_CONNECT",
    { channels: 2, timeouts: connectMs },
    { channels: 3, timeouts: connectMs },
  ],
  [
    "more channels",
    /channel id is [23], must be below 2/,
    "ERR_MULTIFD_HANDSHAKE_ID",
    { channels: 4 },
    { channels: 2 },
  ],
  [
    "uuid",
    /uuid is 0{8}-0000-4000-8000-0{11}1, must be 0{8}-0000-4000-8000-0{11}2/,
    "ERR_MULTIFD_HANDSHAKE_UUID",
    { uuid: `${uuid}1` },
    { uuid: `${uuid}2` },
  ],
  [
    "page size",
    /page size is 4096, must be 16384/,
    "ERR_MULTIFD_STREAM_PAGE_SIZE",
    {},
    { pageSize: 16_384 },
  ],
  [
    "memory size",
    /RAM block pc.ram has 50331648 bytes, must be 262144/,
    "ERR_MULTIFD_STREAM_BLOCKS",
    {},
    { blocks: [RamBlock.allocate("pc.ram", 64 * 4096)] },
  ],
  [
    "blocks",
    /RAM block vga.vram is not announced/,
    "ERR_MULTIFD_STREAM_BLOCKS",
    {},
    { blocks: [RamBlock.allocate("vga.vram", 64 * 4096)] },
  ],
  [
    "machine type",
    /machine is multifd, must be pc-q35-10.0/,
    "ERR_MULTIFD_STREAM_MACHINE",
    {},
    { machine: "pc-q35-10.0" },
  ],
  [
    "machine type that is no default",
    /machine is microvm, must be pc-q35-10.0/,
    "ERR_MULTIFD_STREAM_MACHINE",
    { machine: "microvm" },
    { machine: "pc-q35-10.0" },
  ],
  [
    "digests",
    /Cannot verify RAM block pc.ram: its digest is missing/,
    "ERR_MULTIFD_DIGEST",
    { blocks: [small] },
    { verify: true },
  ],
  [
    "limit of memory",
    /the sender announces 50331648 bytes, at most 4096 are allowed/,
    "ERR_MULTIFD_LIMIT_RAM",
    {},
    { ramBytesMax: 4096 },
  ],
  [
    "devices unknown here",
    /no device is registered here; options devices and deviceStateCompressed must be the same/,
    "ERR_MULTIFD_PACKET_FLAGS",
    { blocks: [small], devices: [device] },
    {},
  ],
  [
    "device state beside compression",
    /options devices and deviceStateCompressed must be the same on both sides/,
    "ERR_MULTIFD_PACKET_FLAGS",
    { blocks: [small], devices: [device], compression: "zstd", deviceStateCompressed: true },
    { compression: "zstd" },
  ],
  [
    "a full disk in the last step",
    /ENOSPC: no space left on device/,
    "ERR_MULTIFD_INTERNAL",
    { blocks: [small] },
    { finalize: () => Promise.reject(full) },
  ],
];

for (const [name, says, code, sender, receiver] of cases) {
  test(`a sender and a receiver name it both: ${name}`, async () => {
    const { sent, received } = await failuresOf(sender, receiver);
    expect(received.message).toMatch(says);
    expect(received).toMatchObject({ code, side: "destination" });
    expect(sent).toBeInstanceOf(PeerError);
    expect(sent).toMatchObject({ code: "ERR_MULTIFD_PEER", side: "source" });
    expect(sent.message).toContain("the receiver refused: ");
    expect(sent.message).toMatch(says);
    expect((sent as PeerError).reason).toMatchObject({ code, message: received.message });
    expect((sent as PeerError).reason?.channel).toBe(received.channel);
  });
}

test("the reason comes over a Unix socket too, where an end is noticed at once", async () => {
  using folder = new TemporaryFolder();
  for (const [sender, receiver] of [
    [{ compression: "zstd" }, { compression: "zlib" }],
    [{}, { ramBytesMax: 4096 }],
  ] as const) {
    const { sent, received } = await failuresOf(sender, receiver, `unix:${folder.file("socket")}`);
    expect((sent as PeerError).reason?.message).toBe(received.message);
  }
});

test("a receiver that is cancelled says so", async () => {
  const cancel = new AbortController();
  await using receiving = await listen({
    endpoint: "127.0.0.1:0",
    timeouts: testTimeouts,
    signal: cancel.signal,
  });
  const received = rejectionOf(receiving.complete());
  await using sending = await connect({
    endpoint: receiving.endpoint,
    timeouts: testTimeouts,
    blocks: [block],
  });
  cancel.abort(new Error("the host goes down"));
  const sent = await rejectionOf(sending.send().then(() => sending.complete()));
  expect((await received).code).toBe("ERR_MULTIFD_CANCELLED");
  expect((sent as PeerError).reason?.code).toBe("ERR_MULTIFD_CANCELLED");
  expect(sent.message).toContain("the host goes down");
});

test("a sender hears of a failure while it waits for its next round", async () => {
  const cancel = new AbortController();
  await using receiving = await listen({
    endpoint: "127.0.0.1:0",
    timeouts: testTimeouts,
    signal: cancel.signal,
  });
  const received = rejectionOf(receiving.complete());
  await using sending = await connect({
    endpoint: receiving.endpoint,
    timeouts: testTimeouts,
    blocks: [small],
  });
  const sent = rejectionOf(sending.send({ rounds: 2, roundDelayMs: 1_000_000 }));
  await until("the first round has arrived", () => receiving.statistics().rounds === 1);
  cancel.abort(new Error("enough"));
  expect(((await sent) as PeerError).reason?.message).toBe((await received).message);
});

/** What a sender of this library ends with whose destination does `step` with its first bytes. */
async function toldBy(step: (main: Socket) => void): Promise<MultifdError> {
  let main: Socket | undefined;
  await using peer = await RawDestination.listen({
    pong: false,
    onData: (kind, bytes, socket, piece) => {
      if (kind !== "main" || bytes !== piece.byteLength) return;
      main ??= socket;
      step(socket);
    },
  });
  return await rejectionOf(
    (async () => {
      await using sending = await connect({
        endpoint: peer.endpoint,
        timeouts: testTimeouts,
        blocks: [block],
      });
      await sending.send();
      await sending.complete();
    })(),
  );
}

const CAUSES =
  /another compression, number of channels, uuid, page size or memory size over there, and its own output has the reason/;

test("a destination that gives no reason, as a QEMU, makes a sender name the usual causes", async () => {
  const ended = await toldBy((main) => void main.write(PONG, () => main.destroy()));
  expect(ended.code).toMatch(/^ERR_MULTIFD_CHANNEL/);
  expect(ended.message).toMatch(CAUSES);
  const reset = await toldBy((main) => void main.write(PONG, () => main.resetAndDestroy()));
  expect(reset.code).toMatch(/^ERR_MULTIFD_CHANNEL/);
  expect(reset.message).toMatch(CAUSES);
  const failed = await toldBy((main) => void main.write(Buffer.concat([PONG, shut(1)])));
  expect(failed).toBeInstanceOf(PeerError);
  expect(failed.message).toMatch(/reported failure 1; the usual causes are/);
});

test("a sender takes no more from a hostile destination than a short plain text", async () => {
  const failure = { code: "ERR_MULTIFD_PACKET", message: "x".repeat(9999) + "\u001b[2J" };
  const told = written((out) => sendReturnMessage(out, { name: "failure", content: failure }));
  const long = await toldBy((main) => void main.write(told));
  expect((long as PeerError).reason?.message).toBe("x".repeat(400));
  // As no sender of this library writes it: escapes, a terminal's bell, text that runs backwards.
  const raw = Buffer.from(
    written((out) => {
      const content = { code: "ERR_X", message: "abcdefgh" };
      sendReturnMessage(out, { name: "failure", content });
    }),
  );
  Buffer.from("\u001b\u0007\u202e\n\r\0", "utf8").copy(raw, raw.byteLength - 8);
  const nasty = await toldBy((main) => void main.write(raw));
  expect((nasty as PeerError).reason?.message).toBe("??????");
  const malformed = Buffer.from(told);
  malformed[4] = 65; // longer than a code may be
  const refused = await toldBy((main) => void main.write(malformed));
  expect(refused.code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
});

test("a source that does not say that it understands a reason gets none", async () => {
  await using receiving = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: testTimeouts,
    ramBytesMax: 4096,
  });
  const received = rejectionOf(receiving.complete());
  using source = new RawSource(receiving.endpoint);
  await source.open(handshake(0));
  const main = await source.open(mainStream("setup"));
  expect((await received).code).toBe("ERR_MULTIFD_LIMIT_RAM");
  // PONG and SHUT 1.
  await until("its end is told", () => (source.answers[main]?.byteLength ?? 0) >= 16);
  expect(source.answers[main]?.toString("hex")).toBe("00020004000000010001000400000001");
});

test("a relay passes the reason of a receiver on, and tells its own", async () => {
  for (const [incoming, outgoing, receiver, says, side] of [
    ["none", "zstd", "zlib", /compression is zstd, must be zlib/, "source"],
    ["zlib", "none", "none", /compression is none, must be zlib/, "destination"],
  ] as const) {
    await using receiving = await listen({
      endpoint: "127.0.0.1:0",
      compression: receiver,
      timeouts: testTimeouts,
    });
    const received = receiving.complete().catch((reason: unknown) => reason as MultifdError);
    await using relaying = await relay({
      listen: { endpoint: "127.0.0.1:0", channels: 2, compression: incoming },
      connect: { endpoint: receiving.endpoint, channels: 2, compression: outgoing },
      timeouts: testTimeouts,
    });
    const relayed = rejectionOf(relaying.complete());
    const sent = await rejectionOf(
      (async () => {
        await using sending = await connect({
          endpoint: relaying.endpoint,
          timeouts: testTimeouts,
          blocks: [block],
        });
        await sending.send();
        await sending.complete();
      })(),
    );
    expect((await relayed).message).toMatch(says);
    expect((await relayed).side).toBe(side);
    expect(sent).toBeInstanceOf(PeerError);
    expect(sent.message).toMatch(says);
    await received;
  }
});

test("a sender of a guest's state says nothing that a QEMU would not", async () => {
  const state = {
    machine: "pc-q35-10.0",
    uuid: new Uint8Array(16),
    validateUuid: false,
    ramSectionId: 2,
    early: new Uint8Array(0),
    switchoverStart: true,
    devices: Uint8Array.of(0),
  };
  for (const [options, number] of [
    [{}, "6d756c74"],
    [{ machine: "pc-q35-10.0" }, "6d756c74"],
    [{ state }, "00000001"],
  ] as const) {
    const pieces: Buffer[] = [];
    await using peer = await RawDestination.listen({
      onData: (kind, _bytes, _socket, piece) => void (kind === "main" && pieces.push(piece)),
    });
    await using sending = await connect({
      endpoint: peer.endpoint,
      timeouts: testTimeouts,
      blocks: [small],
      ...options,
    });
    await sending.send();
    const stream = Buffer.concat(pieces).toString("hex");
    expect(stream).toContain(`0800020004${number}`); // the command PING
    expect(stream).not.toContain(Buffer.from("multifd/").toString("hex"));
  }
});
