import { expect, test } from "bun:test";
import { SendState } from "../lib/engine/send_state.ts";
import { Payload } from "../lib/engine/slot.ts";
import { StatisticsTable } from "../lib/engine/statistics.ts";
import { BlockTable } from "../lib/memory/block_table.ts";
import { parseEndpoint } from "../lib/net/endpoint.ts";
import { MAIN_DESCRIPTOR, SessionControl } from "../lib/sync/session_control.ts";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import { parseUuid } from "../lib/wire/uuid.ts";
import { WorkerGroup } from "../lib/thread/worker_group.ts";
import { listen, RamBlock } from "../mod.ts";
import { written } from "./kit/byte_ends.ts";
import { handshake, packet, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { RawDestination } from "./kit/raw_destination.ts";
import { tableOf } from "./kit/table_blocks.ts";
import { until } from "./kit/threads.ts";
import { testTimeouts } from "./kit/limits.ts";

const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

const filled = (page: number, byte: number): Uint8Array =>
  packet({ normal: [page], payload: new Uint8Array(4096).fill(byte) });

/** A main stream in three pieces: up to the setup's marker, a PART with a marker, the end. */
function mainPieces(zeroInPart?: number): Uint8Array[] {
  const [block] = tableOf(RamBlock.allocate("pc.ram", 64 * 4096));
  const piece = (write: (writer: MainStreamWriter) => void): Uint8Array =>
    written((out) => write(new MainStreamWriter(out)));
  return [
    piece((writer) => {
      writer.header({ machine: "raw", capabilities: [] });
      writer.beginRamSection("start");
      writer.blockList([block!]);
      writer.syncMarker();
      writer.endRamSection();
    }),
    piece((writer) => {
      writer.beginRamSection("part");
      if (zeroInPart !== undefined) writer.zeroPage(block!, zeroInPart);
      writer.syncMarker();
      writer.endRamSection();
    }),
    piece((writer) => {
      writer.beginRamSection("end");
      writer.syncMarker();
      writer.endRamSection();
      writer.end({ page_size: 4096 });
    }),
  ];
}

test("a page of a later round waits for all pages of the earlier one, on every channel", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 2,
    timeouts: testTimeouts,
  });
  using peer = new RawSource(receiver.endpoint);
  const done = receiver.complete();
  const [setup, part, end] = mainPieces() as [Uint8Array, Uint8Array, Uint8Array];
  const main = await peer.open(setup);
  // Channel 0 is through with round one and has sent page 5 of round two already.
  await peer.open(join(handshake(0), syncPacket(), filled(6, 0x11), syncPacket(), filled(5, 0xbb)));
  const slow = await peer.open(join(handshake(1), syncPacket()));
  await receiver.announced();
  const [block] = receiver.blocks;
  const byteOf = (page: number): number => block?.view(page * 4096, 1)[0] ?? -1;
  await until("channel 0 has placed round one", () => byteOf(6) === 0x11);
  peer.write(main, part);
  await Bun.sleep(300);
  // Channel 1 has not come to the sync point: round two must not have begun anywhere.
  expect(byteOf(5)).toBe(0);
  peer.write(slow, join(filled(5, 0xaa), filled(7, 0x22), syncPacket()));
  await until("round two has arrived", () => byteOf(5) === 0xbb);
  expect(byteOf(7)).toBe(0x22);
  // Both channels pass the last sync point, and then the stream ends.
  peer.write(slow, syncPacket());
  peer.write(1, syncPacket());
  peer.write(main, end);
  const { normalPages } = await done;
  expect(normalPages).toBe(4);
  expect([5, 6, 7].map(byteOf)).toEqual([0xbb, 0x11, 0x22]);
});

test("a zero record on the main connection clears a page that has arrived before", async () => {
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    timeouts: testTimeouts,
  });
  using peer = new RawSource(receiver.endpoint);
  const done = receiver.complete();
  const [setup, , end] = mainPieces() as [Uint8Array, Uint8Array, Uint8Array];
  const [, clearing] = mainPieces(9) as [Uint8Array, Uint8Array];
  const [, plain] = mainPieces() as [Uint8Array, Uint8Array];
  const main = await peer.open(setup);
  await peer.open(
    join(handshake(0), syncPacket(), filled(9, 0x33), syncPacket(), syncPacket(), syncPacket()),
  );
  peer.write(main, join(plain, clearing, end));
  const statistics = await done;
  expect(statistics).toMatchObject({ normalPages: 1, zeroPages: 1 });
  expect(receiver.blocks[0]?.view(9 * 4096, 4096).every((byte) => byte === 0)).toBe(true);
});

test("a send channel writes the job first when job and sync are pending at once", async () => {
  const block = RamBlock.allocate("pc.ram", 300 * 4096);
  block.view(0, block.bytes).fill(0x44);
  const received: Buffer[] = [];
  await using peer = await RawDestination.listen({
    onData: (_kind, _bytes, _socket, piece) => received.push(piece),
  });
  const control = new SessionControl();
  const state = SendState.create({ channels: 1, clients: 1, pageSize: 4096 }, control);
  const table = new BlockTable(block.bytes);
  table.add(block);
  const statistics = new StatisticsTable(1);
  const workers = new WorkerGroup(control);
  const job = {
    role: "send-channel",
    channel: 0,
    endpoint: parseEndpoint(peer.endpoint),
    uuid: parseUuid(undefined),
    compression: { method: "none", level: 1 },
    detectZeroPages: true,
    bandwidth: undefined,
    timeouts: { acceptMs: 5000, ...testTimeouts },
    control: control.buffer,
    statistics: statistics.buffer,
    state: state.handle,
    blocks: table.handle,
    devices: false,
    descriptors: MAIN_DESCRIPTOR,
  };
  workers.start(job, "channel_entry");
  // The gate is closed, so both are pending before the channel looks for the first time.
  const slot = state.slots[state.clientSlot(0)]!;
  slot.type = Payload.RAM;
  slot.blockIndex = 0;
  slot.pageCount = 200;
  for (let index = 0; index < 200; index++) slot.pages[index] = index;
  state.channel(0).deliver(state.clientSlot(0));
  state.channel(0).requestSync();
  state.openConnectGate();
  await until("the sync is done", () => state.channel(0).syncDone.tryTake());
  const wireBytes = 64 + 2 * 1344 + 200 * 4096 + 1344;
  const bytes = (): Buffer => Buffer.concat(received);
  await until("all of it has arrived", () => bytes().byteLength >= wireBytes);
  const heads = [64, 64 + 1344 + 128 * 4096, wireBytes - 1344].map((at) =>
    [8, 16].map((field) => bytes().readUInt32BE(at + field)),
  );
  // Flags and normal pages: two packets of the job, then SYNC.
  expect(heads).toEqual([
    [0, 128],
    [0, 72],
    [1, 0],
  ]);
  expect(state.channel(0).jobPending).toBe(false);
  const counters = statistics.channel(0).snapshot();
  expect(counters).toMatchObject({ packets: 2, normalPages: 200, syncs: 1 });
  expect(counters.bytes).toBe(wireBytes);
  control.finish();
  state.wakeChannels();
  expect(workers.join()).toBe(true);
  control.closeDescriptors();
});
