import { expect, test } from "bun:test";
import { PacketError, RamBlock } from "../mod.ts";
import {
  decodeFlags,
  packetPages,
  RamPacketDecoder,
  RamPacketEncoder,
  ramPacketBytes,
} from "../lib/wire/packet.ts";
import { hex } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";
import { tableOf } from "./kit/table_blocks.ts";

const ZLIB_FLAG = 0x02;
const PACKET_BYTES = 1344;

const rom = RamBlock.allocate("/rom@etc/acpi/tables", 8192);
const ram = RamBlock.allocate("pc.ram", 16 * 4096);
const blocks = tableOf(rom, ram);

/** `head` at the start of a packet, `offsets` at its array, zeros elsewhere. */
function packetOf(head: string, offsets = ""): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PACKET_BYTES);
  bytes.set(hex(head));
  bytes.set(hex(offsets), 320);
  return bytes;
}

/** A worked example for the wire format, section 4. */
const EXAMPLE = packetOf(
  `11 22 33 44 00 00 00 01 00 00 00 00 00 00 00 80
   00 00 00 02 00 00 20 00 00 00 00 00 00 00 00 05
   00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00
   00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
   70 63 2e 72 61 6d 00 00 00 00 00 00 00 00 00 00`,
  `00 00 00 00 00 00 10 00 00 00 00 00 00 00 30 00
   00 00 00 00 00 00 20 00`,
);

/** One for section 5. */
const SYNC_EXAMPLE = packetOf(
  `11 22 33 44 00 00 00 01 00 00 00 01 00 00 00 00
   00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 06`,
);

function encoderOver(bytes: Uint8Array, pageSize = 4096): RamPacketEncoder {
  return new RamPacketEncoder(new DataView(bytes.buffer), pageSize);
}

/** Decodes the worked example after `change`, as a receiver of method none would. */
function decode(change: (view: DataView) => void, methodFlag = 0): RamPacketDecoder {
  const view = new DataView(EXAMPLE.slice().buffer);
  change(view);
  const decoder = new RamPacketDecoder(view, { pageSize: 4096, methodFlag });
  decoder.decode(blocks);
  return decoder;
}

test("ramPacketBytes() and packetPages() follow the page size", () => {
  const sizes = [4096, 8192, 16_384, 65_536];
  expect(sizes.map(packetPages)).toEqual([128, 64, 32, 8]);
  expect(sizes.map(ramPacketBytes)).toEqual([1344, 832, 576, 384]);
});

test("RamPacketEncoder writes the worked examples byte for byte, whatever it wrote before", () => {
  const bytes = new Uint8Array(PACKET_BYTES);
  const encoder = encoderOver(bytes);
  const [, pcRam] = blocks;
  const [acpi] = blocks;
  // Longer name, all offsets and every count set: nothing of it may remain.
  const all = Uint32Array.from({ length: 128 }, (_, page) => page);
  encoder.encodePages(acpi!, ZLIB_FLAG, 2 ** 40 + 7, all, 100, 28, 77);
  encoder.encodePages(pcRam!, 0, 5, Uint32Array.of(1, 3, 2), 2, 1, 8192);
  expect(bytes).toEqual(EXAMPLE);
  encoder.encodeSync(6);
  expect(bytes).toEqual(SYNC_EXAMPLE);
  encoder.encodePages(pcRam!, 0, 5, Uint32Array.of(1, 3, 2), 2, 1, 8192);
  expect(bytes).toEqual(EXAMPLE);
});

test("RamPacketEncoder marks a packet of zero pages with the method, without payload", () => {
  const bytes = new Uint8Array(PACKET_BYTES);
  encoderOver(bytes).encodePages(blocks[1]!, ZLIB_FLAG, 1, Uint32Array.of(4), 0, 1, 0);
  const view = new DataView(bytes.buffer);
  expect([8, 12, 16, 20, 32].map((at) => view.getUint32(at))).toEqual([ZLIB_FLAG, 128, 0, 0, 1]);
  expect(view.getBigUint64(320)).toBe(0x4000n);
});

test("RamPacketEncoder writes offsets and packet numbers above 4 GiB", () => {
  const bytes = new Uint8Array(PACKET_BYTES);
  const page = 2 ** 31 + 5;
  encoderOver(bytes).encodePages(blocks[1]!, 0, 2 ** 33 + 1, Uint32Array.of(page), 1, 0, 4096);
  const view = new DataView(bytes.buffer);
  expect(view.getBigUint64(320)).toBe(BigInt(page) * 4096n);
  expect(view.getBigUint64(24)).toBe(2n ** 33n + 1n);
});

test("RamPacketEncoder asks for a buffer of exactly one packet", () => {
  for (const bytes of [1343, 1345, 832]) {
    expect(() => encoderOver(new Uint8Array(bytes))).toThrow(RangeError);
  }
});

test("RamPacketDecoder reads the worked examples", () => {
  const decoder = decode(() => {});
  expect(decoder).toMatchObject({
    sync: false,
    normalPages: 2,
    zeroPages: 1,
    payloadBytes: 8192,
    packetNumber: 5,
    blockIndex: 1,
  });
  expect([...decoder.pages.subarray(0, 3)]).toEqual([1, 3, 2]);

  const sync = new RamPacketDecoder(new DataView(SYNC_EXAMPLE.slice().buffer), {
    pageSize: 4096,
    methodFlag: 0,
  });
  sync.decode(blocks);
  expect(sync).toMatchObject({ sync: true, normalPages: 0, zeroPages: 0, packetNumber: 6 });
});

test("RamPacketDecoder reads what RamPacketEncoder writes, for every page size", () => {
  for (const pageSize of [4096, 8192, 16_384, 65_536]) {
    const block = RamBlock.allocate("x".repeat(255), 300 * pageSize, { pageSize });
    const table = tableOf(block);
    const bytes = new Uint8Array(ramPacketBytes(pageSize));
    const pages = Uint32Array.from({ length: packetPages(pageSize) }, (_, index) => 299 - index);
    encoderOver(bytes, pageSize).encodePages(table[0]!, ZLIB_FLAG, 9, pages, pages.length, 0, 1);
    const decoder = new RamPacketDecoder(new DataView(bytes.buffer), {
      pageSize,
      methodFlag: ZLIB_FLAG,
    });
    decoder.decode(table);
    expect(decoder.pages).toEqual(pages);
    expect(decoder.packetNumber).toBe(9);
  }
});

test("RamPacketDecoder takes a SYNC packet with pages, as sources before 9.0 send them", () => {
  const decoder = decode((view) => view.setUint32(8, 1));
  expect(decoder).toMatchObject({ sync: true, normalPages: 2, zeroPages: 1, payloadBytes: 8192 });
});

test("RamPacketDecoder takes the form before 9.0, in which the zero page count is reserved", () => {
  const decoder = decode((view) => view.setUint32(32, 0));
  expect(decoder).toMatchObject({ normalPages: 2, zeroPages: 0 });
});

test("RamPacketDecoder takes SYNC packets with a page capacity, as 9.0 and 9.1 send them", () => {
  const view = new DataView(SYNC_EXAMPLE.slice().buffer);
  view.setUint32(12, 128);
  const decoder = new RamPacketDecoder(view, { pageSize: 4096, methodFlag: ZLIB_FLAG });
  decoder.decode(blocks);
  expect(decoder).toMatchObject({ sync: true, normalPages: 0, zeroPages: 0 });
});

test("RamPacketDecoder does not look at the payload length of a packet without normal pages", () => {
  for (const stale of [0, 8192, 1_048_577, 0xffff_ffff]) {
    const sync = new DataView(SYNC_EXAMPLE.slice().buffer);
    sync.setUint32(20, stale);
    const decoder = new RamPacketDecoder(sync, { pageSize: 4096, methodFlag: ZLIB_FLAG });
    decoder.decode(blocks);
    expect(decoder).toMatchObject({ sync: true, payloadBytes: 0 });
    const zeroPages = decode((view) => {
      view.setUint32(16, 0);
      view.setUint32(20, stale);
    });
    expect(zeroPages).toMatchObject({ normalPages: 0, zeroPages: 1, payloadBytes: 0 });
  }
});

test("RamPacketDecoder does not look at the block name of a packet without pages", () => {
  const decoder = decode((view) => {
    view.setUint32(16, 0);
    view.setUint32(20, 0);
    view.setUint32(32, 0);
    view.setUint8(64, 0xff);
  });
  expect(decoder).toMatchObject({ normalPages: 0, zeroPages: 0 });
});

test("RamPacketDecoder takes the last page of a block and none behind it", () => {
  const last = ram.bytes - 4096;
  expect(decode((view) => view.setUint32(324, last)).pages[0]).toBe(15);
  expect(() => decode((view) => view.setUint32(324, last + 4096))).toThrow(PacketError);
});

const name = (view: DataView, text: string, fill = 0): void => {
  for (let at = 0; at < 256; at++) view.setUint8(64 + at, text.charCodeAt(at) || fill);
};

const broken: readonly [string, string, RegExp, (view: DataView) => void][] = [
  ["a wrong magic", "MAGIC", /0x51455646, must be 0x11223344/, (v) => v.setUint32(0, 0x5145_5646)],
  ["a wrong version", "VERSION", /version is 2, must be 1/, (v) => v.setUint32(4, 2)],
  ["a device-state packet", "FLAGS", /must be a RAM packet/, (v) => v.setUint32(8, 0x40)],
  [
    "too large a page capacity",
    "PAGES_ALLOC",
    /129 pages, at most 128/,
    (v) => v.setUint32(12, 129),
  ],
  ["more normal pages than fit", "NORMAL_PAGES", /129 .* at most 128/, (v) => v.setUint32(16, 129)],
  [
    "more normal pages than its own capacity",
    "NORMAL_PAGES",
    /2 normal pages announced, at most 1 fit/,
    (v) => v.setUint32(12, 1),
  ],
  [
    "more zero pages than are left",
    "ZERO_PAGES",
    /127 .* at most 126/,
    (v) => v.setUint32(32, 127),
  ],
  ["the largest zero page count", "ZERO_PAGES", /4294967295/, (v) => v.setUint32(32, 0xffff_ffff)],
  [
    "another compression method",
    "METHOD",
    /compression is zlib, must be none/,
    (v) => v.setUint32(8, 2),
  ],
  [
    "more payload than its pages have",
    "NEXT_PACKET_SIZE",
    /8193 bytes of payload for 2 pages, must be 8192/,
    (v) => v.setUint32(20, 8193),
  ],
  ["less payload than its pages have", "NEXT_PACKET_SIZE", /4096/, (v) => v.setUint32(20, 4096)],
  ["no payload for its pages", "NEXT_PACKET_SIZE", /0 bytes/, (v) => v.setUint32(20, 0)],
  ["an unknown block", "RAMBLOCK", /there is no RAM block "pc\.rom"/, (v) => name(v, "pc.rom")],
  ["a longer block name", "RAMBLOCK", /no RAM block "pc\.ram2"/, (v) => name(v, "pc.ram2")],
  ["a shorter block name", "RAMBLOCK", /no RAM block "pc\.ra"/, (v) => name(v, "pc.ra")],
  ["an empty block name", "RAMBLOCK", /no RAM block ""/, (v) => name(v, "")],
  ["a block name without NUL", "RAMBLOCK", /no terminating NUL/, (v) => name(v, "pc.ram", 0x78)],
  [
    "an offset behind the block",
    "OFFSET",
    /offset 65536 is outside/,
    (v) => v.setUint32(324, 65_536),
  ],
  ["an offset above 2^53", "OFFSET", /is outside/, (v) => v.setUint32(320, 0xffff_ffff)],
  ["an offset above 4 GiB", "OFFSET", /is outside/, (v) => v.setUint32(320, 1)],
  [
    "an unaligned offset",
    "OFFSET",
    /4097, must be a multiple of 4096/,
    (v) => v.setUint32(324, 4097),
  ],
  ["a zero page behind the block", "OFFSET", /is outside/, (v) => v.setUint32(340, 65_536)],
  ["an unaligned zero page", "OFFSET", /must be a multiple/, (v) => v.setUint32(340, 1)],
];

for (const [what, field, message, change] of broken) {
  test(`RamPacketDecoder rejects ${what}`, () => {
    const error = thrownBy(() => decode(change));
    expect(error).toBeInstanceOf(PacketError);
    expect(error.code).toBe(`ERR_MULTIFD_PACKET_${field}`);
    expect(error.message).toMatch(message);
  });
}

test("RamPacketDecoder limits a compressed payload to what QEMU has room for", () => {
  const compressed = (bytes: number) => () =>
    decode((view) => {
      view.setUint32(8, ZLIB_FLAG);
      view.setUint32(20, bytes);
    }, ZLIB_FLAG);
  expect(compressed(1_048_576)().payloadBytes).toBe(1_048_576);
  expect(compressed(1)().payloadBytes).toBe(1);
  for (const bytes of [0, 1_048_577, 0xffff_ffff]) {
    expect(thrownBy(compressed(bytes)).code).toBe("ERR_MULTIFD_PACKET_NEXT_PACKET_SIZE");
  }
});

test("RamPacketDecoder keeps nothing of a packet it rejects", () => {
  const bytes = EXAMPLE.slice();
  const view = new DataView(bytes.buffer);
  const decoder = new RamPacketDecoder(view, { pageSize: 4096, methodFlag: 0 });
  decoder.decode(blocks);
  view.setUint32(324, 2 * 4096);
  view.setUint32(340, 65_536); // wrong, behind a page that is right
  view.setUint32(28, 99);
  expect(() => decoder.decode(blocks)).toThrow(PacketError);
  expect(decoder).toMatchObject({ normalPages: 2, zeroPages: 1, packetNumber: 5 });
});

test("decodeFlags() needs only the common header", () => {
  expect(decodeFlags(new DataView(EXAMPLE.slice(0, 12).buffer))).toBe(0);
  expect(decodeFlags(new DataView(SYNC_EXAMPLE.slice(0, 12).buffer))).toBe(1);
});
