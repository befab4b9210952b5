import { expect, test } from "bun:test";
import * as fc from "fast-check";
import { createDeviceQueue, DeviceQueue } from "../lib/engine/device_queue.ts";
import type { DeviceTarget } from "../lib/engine/device_target.ts";
import { ReceiveChannel } from "../lib/engine/receive_channel.ts";
import { ReceiveState } from "../lib/engine/receive_state.ts";
import { StatisticsTable } from "../lib/engine/statistics.ts";
import { BlockTable } from "../lib/memory/block_table.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import {
  DEVICE_PACKET_BYTES,
  encodeDevicePacket,
  encodeVfioHeader,
  VFIO_HEADER_BYTES,
} from "../lib/wire/device_packet.ts";
import { RamPacketEncoder, ramPacketBytes } from "../lib/wire/packet.ts";
import { MultifdError, RamBlock } from "../mod.ts";
import { deviceBytes } from "./kit/device_content.ts";
import { thrownBy } from "./kit/errors.ts";
import { MemoryConnection } from "./kit/memory_connection.ts";

const control = new SessionControl();

const PAGE = 4096;
const IDSTRS = ["dev/a", "dev/b"] as const;

class Fixture {
  readonly block = RamBlock.allocate("pc.ram", 64 * PAGE);
  readonly queues: readonly DeviceQueue[];
  readonly channel: ReceiveChannel;
  readonly counters = new StatisticsTable(1).channel(0);

  constructor(format: "vfio" | "raw" = "vfio", target?: DeviceTarget) {
    const table = new BlockTable(this.block.bytes);
    table.add(this.block);
    const limits = { queuedBytesMax: 4_000_000, queuedBuffersMax: 100 };
    this.queues = IDSTRS.map(
      (idstr) =>
        new DeviceQueue(
          createDeviceQueue({ idstr, instanceId: 0, format, ...limits }, target),
          control,
        ),
    );
    this.channel = new ReceiveChannel({
      channel: 0,
      pageSize: PAGE,
      compression: { method: "none", level: 1 },
      state: new ReceiveState(1, control),
      control,
      blocks: table,
      counters: this.counters,
      devices: this.queues,
      idleMs: 1000,
    });
  }
}

function ramPacket(page: number, content: Uint8Array): Uint8Array {
  const header = new DataView(new ArrayBuffer(ramPacketBytes(PAGE)));
  const table = new BlockTable(64 * PAGE);
  const block = table.add(RamBlock.allocate("pc.ram", 64 * PAGE));
  new RamPacketEncoder(header, PAGE).encodePages(block, 0, 1, Uint32Array.of(page), 1, 0, PAGE);
  return Buffer.concat([new Uint8Array(header.buffer), content]);
}

function devicePacket(idstr: string, idx: number, content: Uint8Array, raw = false): Uint8Array {
  const packet = new DataView(new ArrayBuffer(DEVICE_PACKET_BYTES));
  const vfio = new DataView(new ArrayBuffer(raw ? 0 : VFIO_HEADER_BYTES));
  if (!raw) encodeVfioHeader(vfio, idx, false);
  const payloadBytes = vfio.byteLength + content.byteLength;
  encodeDevicePacket(packet, new TextEncoder().encode(idstr), 0, payloadBytes);
  return Buffer.concat([new Uint8Array(packet.buffer), new Uint8Array(vfio.buffer), content]);
}

type Piece = { readonly kind: "ram" } | { readonly kind: 0 | 1; readonly bytes: number };

const pieces = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("ram" as const) }),
    fc.record({
      kind: fc.constantFrom(0 as const, 1 as const),
      // Around the length of the header buffer (1344 bytes) all cases of reading ahead meet.
      bytes: fc.oneof(
        fc.nat(64),
        fc.nat(3000),
        fc.integer({ min: 1040, max: 1080 }),
        fc.nat(40_000),
      ),
    }),
  ),
  { minLength: 1, maxLength: 12 },
);
const steps = fc.array(
  fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.constant(1_000_000),
    fc.integer({ min: 1, max: 5 }),
  ),
  { minLength: 1, maxLength: 20 },
);

test("ReceiveChannel takes RAM and device state apart, wherever reads are cut", () => {
  fc.assert(
    fc.property(pieces, steps, (list: Piece[], cuts) => {
      const { block, queues, channel, counters } = new Fixture();
      const stream: Uint8Array[] = [];
      const idx = [0, 0];
      const wanted: Uint8Array[][] = [[], []];
      for (const [number, piece] of list.entries()) {
        if (piece.kind === "ram") {
          stream.push(ramPacket(number, deviceBytes(number, 0, PAGE)));
          continue;
        }
        const content = deviceBytes(number, 0, piece.bytes);
        stream.push(devicePacket(IDSTRS[piece.kind], idx[piece.kind]!++, content));
        wanted[piece.kind]!.push(content);
      }
      channel.run(new MemoryConnection(Buffer.concat(stream), cuts));
      for (const [number, piece] of list.entries()) {
        if (piece.kind !== "ram") continue;
        const page = block.view(number * PAGE, PAGE);
        expect(Buffer.compare(page, deviceBytes(number, 0, PAGE))).toBe(0);
      }
      for (const [index, queue] of queues.entries()) {
        for (const content of wanted[index]!) {
          const buffer = queue.take(0);
          expect(Buffer.compare(buffer!.bytes, content)).toBe(0);
          queue.release();
        }
      }
      const sum = wanted.flat().reduce((bytes, content) => bytes + content.byteLength, 0);
      expect(counters.snapshot().deviceBytes).toBe(sum);
    }),
    { numRuns: 150 },
  );
});

test("ReceiveChannel numbers the buffers of a raw device as they come", () => {
  const { queues, channel } = new Fixture("raw");
  const contents = [5, 1, 2000].map((bytes, seed) => deviceBytes(seed, 0, bytes));
  const stream = Buffer.concat(contents.map((content) => devicePacket("dev/b", 0, content, true)));
  channel.run(new MemoryConnection(stream, [1_000_000]));
  for (const content of contents) {
    expect(Buffer.compare(queues[1]!.take(0)!.bytes, content)).toBe(0);
    queues[1]!.release();
  }
});

test("ReceiveChannel rejects a device-state packet before it reads the payload", () => {
  const good = devicePacket("dev/a", 0, new Uint8Array(100));
  const spoiled = (at: number, value: number): Uint8Array => {
    const bytes = new Uint8Array(good);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, value);
    return bytes;
  };
  for (const [stream, code] of [
    [spoiled(8, 0x41), "PACKET_FLAGS"],
    [spoiled(268, 9), "PACKET_DEVICE"],
    [spoiled(272, 11), "PACKET_NEXT_PACKET_SIZE"],
    [spoiled(272, 0xffff_ffff), "PACKET_NEXT_PACKET_SIZE"],
    [spoiled(276, 1), "PACKET_VFIO_VERSION"],
    [spoiled(280, 0xffff_ffff), "PACKET_VFIO_IDX"],
    [spoiled(284, 4), "PACKET_VFIO_FLAGS"],
    [spoiled(280, 5000), "LIMIT_DEVICE_BUFFERS"],
    [Buffer.concat([good, good]), "DEVICE_DUPLICATE"],
    [spoiled(272, 4_000_013), "LIMIT_DEVICE_BYTES"],
  ] as const) {
    const { channel } = new Fixture();
    const connection = new MemoryConnection(stream, [1_000_000]);
    expect(thrownBy(() => channel.run(connection)).code).toBe(`ERR_MULTIFD_${code}`);
  }
});

test("ReceiveChannel notices the end of a connection at every byte of a device-state packet", () => {
  const packet = devicePacket("dev/a", 0, deviceBytes(1, 0, 40));
  for (let length = 1; length < packet.byteLength; length++) {
    const { channel } = new Fixture();
    const connection = new MemoryConnection(packet.subarray(0, length), [7]);
    expect(() => channel.run(connection)).toThrow("the stream ended in the middle");
  }
});

test("ReceiveChannel survives every mutation of device state, and writes nowhere else", () => {
  const CHUNK = 500;
  const LENGTH = 10 * CHUNK + 100;
  const GUARD = 4096;
  const mutations = fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(mutations, steps, fc.constantFrom("vfio", "raw"), (list, cuts, format) => {
      const buffer = new SharedArrayBuffer(GUARD + LENGTH + GUARD);
      const all = new Uint8Array(buffer).fill(0xaa);
      const place = { buffer, byteOffset: GUARD, byteLength: LENGTH, chunkBytes: CHUNK };
      const { channel } = new Fixture(format, format === "raw" ? undefined : place);
      const packets = [0, 1, 2, 3, 4].map((idx) =>
        devicePacket("dev/a", idx, deviceBytes(idx, 0, CHUNK), format === "raw"),
      );
      const stream = Buffer.concat(packets);
      for (const [at, value] of list) stream[at % stream.byteLength] = value;
      try {
        channel.run(new MemoryConnection(stream, cuts));
      } catch (error) {
        const ended = error instanceof Error && error.message.startsWith("the stream ended");
        if (!ended) expect(error).toBeInstanceOf(MultifdError);
      }
      for (const end of [all.subarray(0, GUARD), all.subarray(GUARD + LENGTH)]) {
        expect(end.every((byte) => byte === 0xaa)).toBe(true);
      }
    }),
    { numRuns: 400 },
  );
});
