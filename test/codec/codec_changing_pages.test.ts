/**
 * Pages that change while they are encoded, for every method and engine: the payloads decode, pages
 * that nobody touched arrive as they are, and a quiet round at the end makes all pages equal.
 *
 * Each quiet page holds what its restless neighbours hold half of the time, so a compressor is led to
 * refer from the quiet page back to the restless one; if it looked at the memory twice, the reader
 * would find something else there than the compressor did.
 */
import { expect, test } from "bun:test";
import { Worker } from "node:worker_threads";

import { PageStreamDecoder, PageStreamEncoder } from "../../mod.ts";
import { samplePages, waysHere } from "./codec_pages.ts";
import type { PageHammerStart } from "./page_hammer.ts";

const pageSize = 4096;
const pages = 64;
const packets = 60;
const roundsMin = 200;
const limitMs = 10_000;

for (const { method, engine } of waysHere()) {
  test(`codec/${method}/${engine ?? "raw"}: pages may change while they are encoded`, () => {
    const samples = new Uint8Array(samplePages(pageSize, 12));
    const contents = new SharedArrayBuffer(2 * pageSize);
    // Two pages of machine code, from the sample's second kind.
    new Uint8Array(contents).set(samples.subarray(3 * pageSize, 5 * pageSize));
    const memory = new SharedArrayBuffer(pages * pageSize);
    const bytes = new Uint8Array(memory);
    for (let page = 0; page < pages; page++) {
      const half = (page >> 1) & 1;
      bytes.set(new Uint8Array(contents, half * pageSize, pageSize), page * pageSize);
    }
    const copy = new SharedArrayBuffer(memory.byteLength);
    const all = Uint32Array.from({ length: pages }, (_, page) => page);
    const compression = { method, engine };
    using encoder = new PageStreamEncoder({ memory, pageSize, compression });
    using decoder = new PageStreamDecoder({ memory: copy, pageSize, compression });
    const control = new Int32Array(new SharedArrayBuffer(8));
    const start: PageHammerStart = { memory, pageSize, contents, control: control.buffer };
    const hammer = new Worker(new URL("page_hammer.ts", import.meta.url), { workerData: start });
    try {
      const deadline = performance.now() + limitMs;
      const rounds = (): number => Atomics.load(control, 1);
      while (rounds() === 0 && performance.now() < deadline) Atomics.wait(control, 1, 0, 100);
      expect(rounds()).toBeGreaterThan(0);
      for (let packet = 0; packet < packets || rounds() < roundsMin; packet++) {
        decoder.decode(encoder.encode(all), all);
        expect(unequalPages(memory, copy, (page) => page % 2 === 0)).toEqual([]);
        if (performance.now() > deadline) break;
      }
    } finally {
      Atomics.store(control, 0, 1);
    }
    const stopped = performance.now() + limitMs;
    for (let seen = -1; seen !== Atomics.load(control, 1) && performance.now() < stopped;) {
      seen = Atomics.load(control, 1);
      Atomics.wait(control, 1, seen, 200);
    }
    hammer.unref();
    decoder.decode(encoder.encode(all), all);
    expect(unequalPages(memory, copy, () => true)).toEqual([]);
  }, 30_000);
}

function unequalPages(
  memory: SharedArrayBuffer,
  copy: SharedArrayBuffer,
  wanted: (page: number) => boolean,
): number[] {
  return Array.from({ length: pages }, (_, page) => page).filter((page) => {
    const at = page * pageSize;
    return wanted(page) && Buffer.compare(view(memory, at), view(copy, at)) !== 0;
  });
}

function view(memory: SharedArrayBuffer, at: number): Uint8Array {
  return new Uint8Array(memory, at, pageSize);
}
