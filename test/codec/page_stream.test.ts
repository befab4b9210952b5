import { expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { Worker } from "node:worker_threads";

import { CodecError, PageStreamDecoder, PageStreamEncoder } from "../../mod.ts";
import { samplePages, waysHere } from "./codec_pages.ts";
import { thrownBy } from "../kit/errors.ts";

const pageSize = 4096;
const memory = new SharedArrayBuffer(200 * pageSize);

test("PageStreamEncoder refuses options that cannot work", () => {
  const wrong = [
    { memory: new SharedArrayBuffer(0) },
    { memory: new SharedArrayBuffer(pageSize + 1) },
    { memory, pageSize: 5000 },
    { memory, pageSize: 65_536 },
    { memory, compression: "lzma" as never },
    { memory, compression: { method: "none", level: 1 } as const },
    { memory, compression: { method: "zlib", level: 10 } as const },
    { memory, compression: { method: "zstd", level: 1.5 } as const },
    { memory, compression: { method: "zstd", level: "auto" } as const },
    { memory, compression: { method: "zstd", engine: "libz" } as const },
    { memory, compression: { method: "none", engine: "libz" } as const },
  ];
  for (const options of wrong) {
    expect(() => new PageStreamEncoder(options)).toThrow(RangeError);
    expect(() => new PageStreamDecoder(options)).toThrow(RangeError);
  }
});

test("PageStreamEncoder refuses an engine that cannot keep the window of the format", () => {
  const large = new SharedArrayBuffer(4 * 65_536);
  const options = { memory: large, pageSize: 65_536 };
  if (waysHere().some(({ engine }) => engine === "libdeflate")) {
    const compression = { method: "qpl", engine: "libdeflate" } as const;
    expect(() => new PageStreamEncoder({ ...options, compression })).toThrow(RangeError);
    new PageStreamDecoder({ ...options, compression })[Symbol.dispose]();
  }
  using encoder = new PageStreamEncoder({ ...options, compression: { method: "qpl", level: 9 } });
  expect(encoder.compression.engine).not.toBe("libdeflate");
});

test("PageStreamEncoder and PageStreamDecoder refuse pages that are not in the memory", () => {
  using encoder = new PageStreamEncoder({ memory });
  using decoder = new PageStreamDecoder({ memory });
  for (const pages of [[], [200], [0xffff_ffff], Array.from({ length: 129 }, (_, page) => page)]) {
    expect(() => encoder.encode(Uint32Array.from(pages))).toThrow(RangeError);
    expect(() => decoder.decode(new Uint8Array(1), Uint32Array.from(pages))).toThrow(RangeError);
  }
  expect(() => decoder.decode(new Uint8Array(2 << 20), Uint32Array.of(0))).toThrow(CodecError);
  expect(() => decoder.decode(new Uint8Array(pageSize - 1), Uint32Array.of(0))).toThrow(CodecError);
});

test("PageStreamEncoder.setLevel() refuses a level the method does not have", () => {
  using encoder = new PageStreamEncoder({ memory, compression: "qatzip" });
  for (const level of [0, 10, Number.NaN])
    expect(() => encoder.setLevel(level)).toThrow(RangeError);
});

test("PageStreamEncoder and PageStreamDecoder refuse to go on after they were disposed, with every method", () => {
  const stopped = "Cannot use page stream: it has been disposed";
  for (const { method, engine } of waysHere()) {
    const compression = { method, engine };
    const encoder = new PageStreamEncoder({ memory, compression });
    const decoder = new PageStreamDecoder({ memory, compression });
    const payload = encoder.encode(Uint32Array.of(1)).slice();
    for (const stream of [encoder, decoder, encoder, decoder]) stream[Symbol.dispose]();
    const { code } = thrownBy(() => encoder.encode(Uint32Array.of(1)));
    expect(code).toBe("ERR_MULTIFD_DISPOSED");
    expect(() => encoder.encode(Uint32Array.of(1))).toThrow(stopped);
    expect(() => encoder.setLevel(1)).toThrow(stopped);
    expect(() => decoder.decode(payload, Uint32Array.of(1))).toThrow(stopped);
  }
});

for (const { method, engine } of waysHere()) {
  test(`codec/${method}/${engine ?? "raw"}: random pages cost next to nothing on the wire`, () => {
    const random = new SharedArrayBuffer(128 * pageSize);
    randomFillSync(new Uint8Array(random));
    using encoder = new PageStreamEncoder({ memory: random, compression: { method, engine } });
    const all = Uint32Array.from({ length: 128 }, (_, page) => page);
    const scattered = all.filter((page) => page % 2 === 0);
    for (const pages of [all, scattered, all]) {
      const bytes = pages.length * pageSize;
      const { length } = encoder.encode(pages);
      if (method === "none") expect(length).toBe(bytes);
      else if (method === "qpl" || method === "uadk") expect(length).toBe(bytes + 4 * pages.length);
      else expect(length).toBeLessThan(bytes * 1.002);
    }
  });
}

test.skipIf(!waysHere().some(({ engine }) => engine === "isal"))(
  "codec/zlib/isal: levels 0, 1 and 2 are three levels, and stay so behind random pages",
  () => {
    const sample = samplePages(pageSize, 300);
    const all = Uint32Array.from({ length: 128 }, (_, page) => page);
    const random = all.map((page) => 201 + (page % 99)); // its last third
    const sizes = [0, 1, 2].map((level) => {
      const compression = { method: "zlib", engine: "isal", level } as const;
      using encoder = new PageStreamEncoder({ memory: sample, compression });
      encoder.encode(random);
      const first = encoder.encode(all).length;
      encoder.encode(random);
      expect(encoder.encode(all).length).toBe(first);
      return first;
    });
    expect(new Set(sizes).size).toBe(3);
  },
);

test("PageStreamEncoder works in a worker, on memory that another thread fills", async () => {
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(workerData.mod).then(({ PageStreamEncoder }) => {
      using encoder = new PageStreamEncoder({ memory: workerData.memory, compression: "zstd" });
      parentPort.postMessage(Uint8Array.from(encoder.encode(Uint32Array.of(3, 1))));
    });
  `;
  new Uint8Array(memory, pageSize, pageSize).fill(7);
  new Uint8Array(memory, 3 * pageSize, pageSize).fill(9);
  const mod = new URL("../../mod.ts", import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { mod, memory } });
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  worker.once("message", resolve);
  worker.once("error", reject);
  const payload = await promise;
  const copy = new SharedArrayBuffer(4 * pageSize);
  using decoder = new PageStreamDecoder({ memory: copy, compression: "zstd" });
  decoder.decode(payload, Uint32Array.of(3, 1));
  expect(new Uint8Array(copy, pageSize, pageSize).every((byte) => byte === 7)).toBeTrue();
  expect(new Uint8Array(copy, 3 * pageSize, pageSize).every((byte) => byte === 9)).toBeTrue();
  await worker.terminate();
}, 20_000);
