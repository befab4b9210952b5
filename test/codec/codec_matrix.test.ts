/**
 * Every method, with every engine that can encode it, read by every engine that can decode it.
 */
import { expect, test } from "bun:test";

import { PageStreamDecoder, PageStreamEncoder } from "../../mod.ts";
import { missingEngines, packetsOf, samplePages, waysHere } from "./codec_pages.ts";

// An engine is a system library; where it is not installed there is nothing to run.
for (const engine of missingEngines())
  test.skip(`codec/${engine}: its library is missing`, () => {});

const ways = waysHere();

for (const { pageSize, pages } of [
  { pageSize: 4096, pages: 400 },
  { pageSize: 65_536, pages: 40 },
]) {
  const memory = samplePages(pageSize, pages);
  const packets = packetsOf(pages, 524_288 / pageSize);

  for (const { method, engine } of ways) {
    if (pageSize > 4096 && engine === "libdeflate" && method !== "qatzip") continue;
    for (const reader of ways.filter((way) => way.method === method)) {
      test(`codec/${method}/${engine ?? "raw"}/to-${reader.engine ?? "raw"}/pages-of-${pageSize}`, () => {
        const copy = new SharedArrayBuffer(memory.byteLength);
        const target = new Uint8Array(copy);
        using encoder = new PageStreamEncoder({
          memory,
          pageSize,
          compression: { method, engine },
        });
        using decoder = new PageStreamDecoder({
          memory: copy,
          pageSize,
          compression: { method, engine: reader.engine },
        });
        let payloadBytes = 0;
        for (const packet of packets) {
          target.fill(0xaa);
          const payload = encoder.encode(packet);
          payloadBytes += payload.length;
          decoder.decode(payload, packet);
          checkPages(memory, copy, packet, pageSize);
        }
        const pageBytes = packets.reduce((sum, packet) => sum + packet.length * pageSize, 0);
        if (method === "none") expect(payloadBytes).toBe(pageBytes);
        else expect(payloadBytes).toBeLessThan(0.85 * pageBytes);
      });
    }
  }
}

/** The packet's pages are those of the source, all others are untouched. */
function checkPages(
  memory: SharedArrayBuffer,
  copy: SharedArrayBuffer,
  packet: Uint32Array,
  pageSize: number,
): void {
  const expected = Buffer.alloc(memory.byteLength, 0xaa);
  const source = new Uint8Array(memory);
  for (const page of packet) {
    expected.set(source.subarray(page * pageSize, (page + 1) * pageSize), page * pageSize);
  }
  expect(Buffer.from(copy).equals(expected)).toBeTrue();
}
