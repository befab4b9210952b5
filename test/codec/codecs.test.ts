import { expect, test } from "bun:test";
import { deflateSync } from "node:zlib";
import { ZlibDeflate, ZlibInflate } from "../../ffi/libz.ts";
import { ZstdCompressStream, ZstdDecompressStream } from "../../ffi/libzstd.ts";
import { Arena } from "../../ffi/arena.ts";
import {
  createDecoder,
  createEncoder,
  methodFlag,
  resolveCompression,
} from "../../lib/codec/registry.ts";
import { CodecError, COMPRESSION_METHODS, RamBlock, type CompressionMethod } from "../../mod.ts";
import { waysHere, type Way } from "./codec_pages.ts";
import { decodeRuns, encodeRuns } from "./codec_pipe.ts";
import type { PageDecoder, PageEncoder } from "../../lib/codec/codec.ts";
import { IovecList } from "../../lib/memory/iovec_list.ts";
import { thrownBy } from "../kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "../kit/page_content.ts";
import { runsOf, tableOf } from "../kit/table_blocks.ts";
import { TestThread, until } from "../kit/threads.ts";

const WAYS = waysHere();
/** Methods with one stream for the whole migration. */
const STREAMING = WAYS.filter(({ method }) => method === "zlib" || method === "zstd");
const COMPRESSING = WAYS.filter(({ method }) => method !== "none");

const nameOf = ({ method, engine }: Way): string => `${method}/${engine ?? "raw"}`;

const encoderOf = (way: Way, pageSize = 4096): PageEncoder =>
  createEncoder(resolveCompression(way, "encode", pageSize), pageSize);

const decoderOf = (way: Way, pageSize = 4096): PageDecoder =>
  createDecoder(resolveCompression(way, "decode", pageSize), pageSize);

const PAGES = 300;

/** A full block, an empty one, and both as channel threads see them. */
function setUp(pageSize = 4096) {
  const source = RamBlock.allocate("source", PAGES * pageSize, { pageSize });
  const target = RamBlock.allocate("target", PAGES * pageSize, { pageSize });
  fillBlock(source, 1);
  const [from] = tableOf(source);
  const [to] = tableOf(target);
  return { source, target, from: from!, to: to! };
}

function packets(pageSize: number): number[][] {
  const perPacket = 524_288 / pageSize;
  const lists: number[][] = [];
  for (
    let page = 0, length = 1;
    page < PAGES;
    page += length, length = (length * 3) % perPacket || 1
  ) {
    const count = Math.min(length, PAGES - page);
    // Neither in order nor in one piece.
    lists.push(Array.from({ length: count }, (_, index) => page + ((index * 7) % count)));
  }
  return lists.map((list) => [...new Set(list)]);
}

for (const way of WAYS) {
  for (const pageSize of [4096, 65_536]) {
    // libdeflate cannot keep the page methods' short window in larger pages.
    if (pageSize > 4096 && way.engine === "libdeflate" && way.method !== "qatzip") continue;
    test(`${nameOf(way)} gives back the pages of many packets of one stream, pages of ${pageSize}`, () => {
      const { source, target, from, to } = setUp(pageSize);
      using encoder = encoderOf(way, pageSize);
      using decoder = decoderOf(way, pageSize);
      const sent = new Set<number>();
      for (const pages of packets(pageSize)) {
        decodeRuns(decoder, runsOf(to, pages), encodeRuns(encoder, runsOf(from, pages)));
        for (const page of pages) sent.add(page);
      }
      for (let page = 0; page < PAGES; page++) {
        if (sent.has(page)) continue;
        decodeRuns(decoder, runsOf(to, [page]), encodeRuns(encoder, runsOf(from, [page])));
      }
      expect(differingPages(source, target)).toEqual([]);
    });
  }
}

for (const way of STREAMING) {
  const { method } = way;
  test(`${nameOf(way)} keeps its stream over packets, each decodable as soon as it is there`, () => {
    const { from, to, target } = setUp();
    using encoder = encoderOf(way);
    using decoder = decoderOf(way);
    const pages = [1, 2, 5, 8];
    const first = encodeRuns(encoder, runsOf(from, pages));
    const second = encodeRuns(encoder, runsOf(from, pages));
    // The second packet leans on the first: it refers to it instead of holding it again.
    expect(second.byteLength).toBeLessThan(first.byteLength / 4);
    decodeRuns(decoder, runsOf(to, pages), first);
    target.view(4096, 4096).fill(0xff);
    decodeRuns(decoder, runsOf(to, pages), second);
    expect(target.view(4096, 4096)[0]).not.toBe(0xff);
    // A decoder that has not seen the first packet cannot read the second.
    using late = decoderOf(way);
    expect(thrownBy(() => decodeRuns(late, runsOf(to, pages), second))).toBeInstanceOf(CodecError);
  });

  test(`${nameOf(way)} writes its header once and never ends its stream`, () => {
    const { source, from } = setUp();
    for (const page of [1, 2]) fillPage(source.view(page * 4096, 4096), "text", page);
    using encoder = encoderOf(way);
    const first = encodeRuns(encoder, runsOf(from, [1]));
    const second = encodeRuns(encoder, runsOf(from, [2]));
    if (method === "zlib") {
      expect([first[0], ((first[0]! << 8) + first[1]!) % 31]).toEqual([0x78, 0]);
      // A sync flush ends with an empty stored block.
      for (const payload of [first, second]) {
        expect([...payload.subarray(-4)]).toEqual([0, 0, 0xff, 0xff]);
      }
    } else {
      const magic = [0x28, 0xb5, 0x2f, 0xfd];
      expect([...first.subarray(0, 4)]).toEqual(magic);
      expect([...second.subarray(0, 4)]).not.toEqual(magic);
    }
  });

  test(`${nameOf(way)} rejects a stream that was ended in the middle`, () => {
    const { source, from, to } = setUp();
    for (const page of [1, 2]) fillPage(source.view(page * 4096, 4096), "text", page);
    using decoder = decoderOf(way);
    const page = source.view(4096, 4096).slice();
    const ended = method === "zlib" ? deflateSync(page) : Bun.zstdCompressSync(page);
    // The first packet is complete; what would follow it is not part of the stream any more.
    try {
      decodeRuns(decoder, runsOf(to, [1]), ended);
    } catch (error) {
      expect(error).toBeInstanceOf(CodecError);
    }
    using encoder = encoderOf(way);
    encodeRuns(encoder, runsOf(from, [1]));
    const next = encodeRuns(encoder, runsOf(from, [2]));
    expect(thrownBy(() => decodeRuns(decoder, runsOf(to, [2]), next))).toBeInstanceOf(CodecError);
  });

  test(`${nameOf(way)} packets are complete for a reader that asks for one page at a time, as QEMU does`, () => {
    const { source, from } = setUp();
    using encoder = encoderOf(way);
    const reader = method === "zlib" ? new ZlibInflate() : new ZstdDecompressStream();
    const page = new Arena(4096);
    const input = new Arena(1 << 20);
    let first = true;
    for (const pages of packets(4096)) {
      const payload = encodeRuns(encoder, runsOf(from, pages));
      input.u8.set(payload);
      // The zlib header stands once, before the first packet; the reader here begins behind it.
      const skip = reader instanceof ZlibInflate && first ? 2 : 0;
      first = false;
      reader.setInput(input.address + skip, payload.byteLength - skip);
      for (const number of pages) {
        reader.setOutput(page.address, 4096);
        // QEMU asks once, and again while there is input and room; then the page must be full.
        do {
          reader.decompress();
        } while (reader.inputLeft > 0 && reader.outputLeft > 0);
        expect(reader.outputLeft).toBe(0);
        const wanted = source.view(number * 4096, 4096);
        expect(Buffer.compare(page.u8.subarray(0, 4096), wanted)).toBe(0);
      }
      // The next packet overwrites QEMU's buffer: nothing of this one may be left in it.
      expect(reader.inputLeft).toBe(0);
    }
    reader[Symbol.dispose]();
  });

  test(`${nameOf(way)} keeps a packet of incompressible pages within what QEMU has room for`, () => {
    const { source, from } = setUp();
    for (let page = 0; page < 128; page++) fillPage(source.view(page * 4096, 4096), "random", page);
    using encoder = encoderOf(way);
    const pages = Array.from({ length: 128 }, (_, page) => page);
    const payload = encodeRuns(encoder, runsOf(from, pages));
    expect(payload.byteLength).toBeGreaterThan(524_288);
    expect(payload.byteLength).toBeLessThan(540_000);
  });
}

for (const way of COMPRESSING) {
  test(`${nameOf(way)} rejects payloads that end early, hold too much, or are damaged`, () => {
    const { from, to, target } = setUp();
    const guard = target.view(5 * 4096, 4096);
    guard.fill(0xa5);
    /** Sends pages 0 to 3 and receives as many as `count`. */
    const attempt = (count: number, change: (payload: Uint8Array) => Uint8Array): void => {
      using encoder = encoderOf(way);
      using decoder = decoderOf(way);
      const payload = encodeRuns(encoder, runsOf(from, [0, 1, 2, 3]));
      decodeRuns(decoder, runsOf(to, [0, 1, 2, 3, 4].slice(0, count)), change(payload));
    };
    attempt(4, (payload) => payload);
    for (const [count, part] of [
      [4, 0.5],
      [4, 0.01],
      [5, 1],
      [3, 1],
    ] as const) {
      const error = thrownBy(() =>
        attempt(count, (payload) => payload.subarray(0, Math.ceil(payload.byteLength * part))),
      );
      expect(error).toBeInstanceOf(CodecError);
      expect(error.code).toBe("ERR_MULTIFD_CODEC");
      expect(error.message).toStartWith(`Cannot decode ${way.method} payload: `);
    }
    let refused = 0;
    for (let at = 0; at < 60; at++) {
      try {
        attempt(4, (payload) => {
          payload[at * 7] = (payload[at * 7] ?? 0) ^ 0x55;
          return payload;
        });
      } catch (error) {
        expect(error).toBeInstanceOf(CodecError);
        refused++;
      }
      // Whatever the payload says, nothing is written behind the pages.
      expect(guard.every((byte) => byte === 0xa5)).toBe(true);
    }
    expect(refused).toBeGreaterThan(0);
  });
}

for (const way of WAYS) {
  test(`${nameOf(way)} stays decodable while other threads write to the pages`, async () => {
    const block = RamBlock.allocate("hammered", 128 * 4096);
    const target = RamBlock.allocate("target", 128 * 4096);
    fillBlock(block, 3);
    const [from] = tableOf(block);
    const [to] = tableOf(target);
    const gate = new Int32Array(new SharedArrayBuffer(16));
    const hammers = [1, 2].map(
      (seed) => new TestThread("page_hammer", { block: block.share(), gate: gate.buffer, seed }),
    );
    try {
      await until("both write", () => Atomics.load(gate, 2) === 2 && Atomics.load(gate, 1) > 2);
      using encoder = encoderOf(way);
      using decoder = decoderOf(way);
      const pages = Array.from({ length: 128 }, (_, page) => page);
      for (let round = 0; round < 40; round++) {
        decodeRuns(decoder, runsOf(to!, pages), encodeRuns(encoder, runsOf(from!, pages)));
      }
      const passes = Atomics.load(gate, 1);
      Atomics.store(gate, 0, 1);
      await Promise.all(hammers.map((hammer) => hammer.result()));
      expect(passes).toBeGreaterThan(2);
      decodeRuns(decoder, runsOf(to!, pages), encodeRuns(encoder, runsOf(from!, pages)));
      expect(differingPages(block, target)).toEqual([]);
    } finally {
      await Promise.all(hammers.map((hammer) => hammer[Symbol.asyncDispose]()));
    }
  });
}

test("resolveCompression() fills in level 1 and rejects what no method has", () => {
  expect(resolveCompression(undefined, "encode", 4096)).toEqual({ method: "none", level: 1 });
  expect(resolveCompression("zstd", "decode", 4096)).toMatchObject({ method: "zstd", level: 1 });
  expect(resolveCompression({ method: "zlib", level: 0 }, "encode", 4096)).toMatchObject({
    method: "zlib",
    level: 0,
  });
  for (const [method, level] of [
    ["zlib", -1],
    ["zlib", 10],
    ["zlib", 1.5],
    ["zlib", NaN],
    ["zstd", 21],
    ["none", 1],
    ["lzma", undefined],
    ["constructor", undefined],
  ] as const) {
    const compression = { method: method as CompressionMethod, level };
    expect(() => resolveCompression(compression, "encode", 4096)).toThrow(RangeError);
  }
});

test("methodFlag() gives the values of the wire format", () => {
  const flags = { none: 0, zlib: 2, zstd: 4, qpl: 8, uadk: 0x10, qatzip: 0x20 };
  expect(Object.fromEntries(COMPRESSION_METHODS.map((name) => [name, methodFlag(name)]))).toEqual(
    flags,
  );
});

test("every level of zlib and zstd gives back its pages", () => {
  const { source, target, from, to } = setUp();
  const pages = Array.from({ length: 16 }, (_, page) => page);
  const levels = [0, 1, 6, 9];
  for (const [method, list] of [
    ["zlib", levels],
    ["zstd", [-7, 0, 1, 3, 12, 20]],
  ] as const) {
    for (const level of list) {
      target.view(0, 16 * 4096).fill(0x77);
      const encoding = resolveCompression({ method, level }, "encode", 4096);
      using encoder = createEncoder(encoding, 4096);
      using decoder = decoderOf({ method, engine: undefined });
      decodeRuns(decoder, runsOf(to, pages), encodeRuns(encoder, runsOf(from, pages)));
      expect(differingPages(source, target).every((page) => page >= 16)).toBe(true);
    }
  }
});

test("native streams refuse to work after dispose, and dispose twice", () => {
  for (const stream of [
    new ZlibDeflate(1),
    new ZlibInflate(),
    new ZstdCompressStream(1),
    new ZstdDecompressStream(),
  ]) {
    stream[Symbol.dispose]();
    stream[Symbol.dispose]();
    expect(() => {
      if (stream instanceof ZlibDeflate || stream instanceof ZstdCompressStream) {
        stream.compress(true);
      } else stream.decompress();
    }).toThrow();
  }
});

for (const way of WAYS) {
  test(`codec/${nameOf(way)}: an encoder and a decoder that were disposed refuse to go on`, () => {
    const { from, to } = setUp();
    const [encoder, decoder] = [encoderOf(way), decoderOf(way)];
    const pieces = new IovecList();
    for (const codec of [encoder, decoder, encoder, decoder]) codec[Symbol.dispose]();
    const { method } = way;
    const encoding = thrownBy(() => encoder.encode(runsOf(from, [1]), pieces));
    expect(encoding.code).toBe("ERR_MULTIFD_DISPOSED");
    expect(encoding.message).toBe(`Cannot use ${method} encoder: it has been disposed`);
    if (encoder.setLevel !== undefined) {
      expect(thrownBy(() => encoder.setLevel?.(1)).code).toBe("ERR_MULTIFD_DISPOSED");
    }
    const nothing = {
      receive: () => expect.unreachable(),
      receiveRuns: () => expect.unreachable(),
    };
    const decoding = thrownBy(() => decoder.decode(runsOf(to, [1]), 4096, nothing));
    expect(decoding.message).toBe(`Cannot use ${method} decoder: it has been disposed`);
  });
}
