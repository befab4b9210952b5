import { expect, test } from "bun:test";
import { Arena } from "../../ffi/arena.ts";
import { ZstdDecompressStream } from "../../ffi/libzstd.ts";
import { createDecoder, createEncoder, resolveCompression } from "../../lib/codec/registry.ts";
import { RamBlock } from "../../mod.ts";
import { decodeRuns, encodeRuns } from "./codec_pipe.ts";
import { differingPages, fillPage, type PageKind } from "../kit/page_content.ts";
import { runsOf, tableOf } from "../kit/table_blocks.ts";

const PAGE = 4096;
const WAY = { method: "zstd" } as const;
const FRAME_HEADER = [0x28, 0xb5, 0x2f, 0xfd];

/** Packets of one kind of page each: pages, kind, whether raw blocks are expected. */
const PACKETS: readonly (readonly [pages: number, kind: PageKind, raw: boolean])[] = [
  [3, "random", true], // no frame is open, nothing is lost
  [128, "random", true],
  [20, "text", false],
  [5, "random", false], // in an open frame its history is worth more
  [40, "random", true],
  [1, "random", true],
  [128, "text", false],
  [128, "random", true],
  [33, "random", true],
  [2, "text", false],
  [7, "text", false],
];

/** The payloads of {@link PACKETS}; every packet's level may differ. */
function encodeAll(levels: readonly number[] = []) {
  const total = PACKETS.reduce((sum, [pages]) => sum + pages, 0);
  const source = RamBlock.allocate("source", total * PAGE);
  const [from] = tableOf(source);
  using encoder = createEncoder(resolveCompression(WAY, "encode", PAGE), PAGE);
  let start = 0;
  const packets = PACKETS.map(([count, kind, raw], index) => {
    const numbers = Array.from({ length: count }, (_, page) => start + page);
    start += count;
    for (const page of numbers) fillPage(source.view(page * PAGE, PAGE), kind, page + 1);
    // In two runs, so that a block may begin in one and end in the other.
    const pages = [...numbers.slice(count >> 1), ...numbers.slice(0, count >> 1)];
    const level = levels[index % levels.length];
    if (level !== undefined) encoder.setLevel?.(level);
    const payload = encodeRuns(encoder, runsOf(from!, pages));
    return { pages, raw, payload };
  });
  return { source, packets };
}

test("codec/zstd/raw: packets of pages that cannot be compressed hold them as they are", () => {
  const { source, packets } = encodeAll();
  const target = RamBlock.allocate("target", source.bytes);
  const [to] = tableOf(target);
  using decoder = createDecoder(resolveCompression(WAY, "decode", PAGE), PAGE);
  for (const [index, { pages, raw, payload }] of packets.entries()) {
    if (raw) {
      const content = pages.length * PAGE;
      const overhead = payload.byteLength - content;
      const begins = Buffer.compare(payload.subarray(0, 4), Uint8Array.from(FRAME_HEADER)) === 0;
      // A header of a frame, unless one was open, and one of every block of 128 KiB.
      expect(overhead).toBe((begins ? 6 : 0) + 3 * Math.ceil(content / 131_072));
      expect(begins).toBe(packets[index - 1]?.raw ?? true);
    }
    decodeRuns(decoder, runsOf(to!, pages), payload);
  }
  expect(differingPages(source, target)).toEqual([]);
});

/** Bytes that each of two equal packets of these pages takes at `level`. */
function payloadBytes(level: number, pages: readonly Uint8Array[]): [number, number] {
  const block = RamBlock.allocate("source", pages.length * PAGE);
  for (const [index, page] of pages.entries()) block.view(index * PAGE, PAGE).set(page);
  const [table] = tableOf(block);
  using encoder = createEncoder(resolveCompression({ ...WAY, level }, "encode", PAGE), PAGE);
  const numbers = Array.from(pages, (_, page) => page);
  const next = (): number => encodeRuns(encoder, runsOf(table!, numbers)).byteLength;
  return [next(), next()];
}

const randomPages = (count: number): Uint8Array[] =>
  Array.from({ length: count }, () => crypto.getRandomValues(new Uint8Array(PAGE)));

test("codec/zstd/raw: pages that come more than once in a packet are compressed", () => {
  const [page] = randomPages(1);
  expect(
    payloadBytes(
      1,
      Array.from({ length: 128 }, () => page!),
    )[0],
  ).toBeLessThan(3 * PAGE);
  const half = randomPages(64);
  expect(payloadBytes(1, [...half, ...half])[0]).toBeLessThan(66 * PAGE);
});

test("codec/zstd/raw: levels whose window reaches over more than a packet keep their history", () => {
  const pages = randomPages(128);
  for (const level of [0, 2, 3]) {
    const [first, again] = payloadBytes(level, pages);
    expect(first).toBeGreaterThan(128 * PAGE);
    expect(again).toBeLessThan(PAGE);
  }
});

for (const levels of [[], [1, 9], [3, -5, 9]]) {
  test(`codec/zstd/raw: QEMU, which asks for one page at a time, reads them beside others, levels ${levels.join(", ") || "unchanged"}`, () => {
    const { source, packets } = encodeAll(levels);
    using reader = new ZstdDecompressStream();
    const page = new Arena(PAGE);
    const input = new Arena(1 << 20);
    for (const { pages, payload } of packets) {
      input.u8.set(payload);
      reader.setInput(input.address, payload.byteLength);
      for (const number of pages) {
        reader.setOutput(page.address, PAGE);
        // QEMU asks once, and again only while libzstd wants to: a frame's end would stop it.
        reader.decompress();
        expect(reader.outputLeft).toBe(0);
        const wanted = source.view(number * PAGE, PAGE);
        expect(Buffer.compare(page.u8.subarray(0, PAGE), wanted)).toBe(0);
      }
      // The next packet overwrites QEMU's buffer: nothing of this one may be left in it.
      expect(reader.inputLeft).toBe(0);
    }
  });
}
