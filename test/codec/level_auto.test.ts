/**
 * `level: "auto"` in a session and in its streams.
 */
import { expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";

import { connect, listen, PageStreamDecoder, PageStreamEncoder, RamBlock } from "../../mod.ts";
import { ZstdDecompressStream } from "../../ffi/libzstd.ts";
import { addressOf } from "../../ffi/arena.ts";
import { packetsOf, samplePages, waysHere } from "./codec_pages.ts";

const pageSize = 4096;

function fillWithWords(bytes: Uint8Array): void {
  const words = Array.from({ length: 256 }, (_, index) =>
    Buffer.from(`${(index * 2_654_435_761).toString(36)} `),
  );
  let random = 1;
  for (let at = 0; at < bytes.length;) {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    const word = words[random >>> 24]!;
    bytes.set(word.subarray(0, bytes.length - at), at);
    at += word.length;
  }
}

test("multifd/tcp/zstd/auto: a bandwidth limit raises the level, pages that shrink well lower it", async () => {
  const compression = { method: "zstd", level: "auto" } as const;
  const timeouts = { connectMs: 10_000, idleMs: 30_000, stallMs: 20_000 };
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    channels: 1,
    compression,
    timeouts,
  });
  const memory = new SharedArrayBuffer(32 << 20);
  const bytes = new Uint8Array(memory);
  const block = RamBlock.fromBuffer("pc.ram", memory);
  await using sender = await connect({
    endpoint: receiver.endpoint,
    channels: 1,
    compression,
    timeouts,
    blocks: [block],
    maxBandwidth: 64 << 20,
    verify: true,
  });
  const level = (): number | undefined => sender.statistics().channels[0]?.level;
  expect(level()).toBe(1);

  // Random pages: the limit holds the channel up, the processor has nothing else to do.
  randomFillSync(bytes);
  await sender.send();
  await sender.sync();
  const high = level() ?? 0;
  expect(high).toBeGreaterThan(1);

  // Words in any order shrink to a fifth, so the limit is out of reach of the high level.
  fillWithWords(bytes);
  for (let round = 0; round < 40 && (level() ?? 0) >= high; round++) {
    await sender.send();
    await sender.sync();
  }
  expect(level()).toBeLessThan(high);
  await Promise.all([sender.complete(), receiver.complete()]);
}, 60_000);

for (const { method, engine } of waysHere().filter((way) => way.engine !== undefined)) {
  test(`codec/${method}/${engine}: the level may change between any two packets`, () => {
    const memory = samplePages(pageSize, 300);
    const copy = new SharedArrayBuffer(memory.byteLength);
    const compression = { method, engine };
    using encoder = new PageStreamEncoder({ memory, compression });
    using decoder = new PageStreamDecoder({ memory: copy, compression });
    const levels = method === "zstd" ? [-5, 1, 9, 3] : [1, 9, 2, 6];
    for (const [index, packet] of [...packetsOf(300, 128), ...packetsOf(300, 128)].entries()) {
      decoder.decode(encoder.encode(packet), packet);
      encoder.setLevel(levels[index % levels.length] ?? 1);
    }
    expect(Buffer.compare(Buffer.from(memory), Buffer.from(copy))).toBe(0);
  });
}

test("codec/zstd/libzstd: QEMU, which asks for one page at a time, reads packets of changing levels", () => {
  const pages = 256;
  const memory = samplePages(pageSize, pages);
  using encoder = new PageStreamEncoder({ memory, compression: { method: "zstd" } });
  using stream = new ZstdDecompressStream();
  const page = new SharedArrayBuffer(pageSize);
  const input = new SharedArrayBuffer(1 << 20);
  const levels = [3, -5, 9, 1];
  for (const [index, packet] of packetsOf(pages, 128).entries()) {
    encoder.setLevel(levels[index % levels.length] ?? 1);
    const payload = encoder.encode(packet);
    new Uint8Array(input).set(payload);
    stream.setInput(addressOf(input), payload.length);
    for (const number of packet) {
      stream.setOutput(addressOf(page), pageSize);
      stream.decompress();
      const expected = new Uint8Array(memory, number * pageSize, pageSize);
      expect(Buffer.compare(new Uint8Array(page), expected)).toBe(0);
    }
    expect(stream.inputLeft).toBe(0);
  }
});
