/**
 * Pages of every kind that matters to a codec, and the methods and engines this machine has.
 */
import { randomFillSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { deflateRawSync } from "node:zlib";

import { capabilities, type CompressionMethod, type EngineName } from "../../mod.ts";

/** One way to code on this machine; engine undefined only for method none. */
export interface Way {
  readonly method: CompressionMethod;
  readonly engine: EngineName | undefined;
}

/** Every method with every engine that is installed. */
export function waysHere(): Way[] {
  return capabilities().methods.flatMap(({ method, engines }): Way[] =>
    engines.length === 0
      ? [{ method, engine: undefined }]
      : engines.filter(({ available }) => available).map(({ engine }) => ({ method, engine })),
  );
}

/** Engines of any method that are not installed, for the name of a skipped test. */
export function missingEngines(): string[] {
  return capabilities()
    .methods.flatMap(({ engines }) => engines)
    .filter(({ available }) => !available)
    .map(({ engine }) => engine)
    .filter((engine, index, all) => all.indexOf(engine) === index);
}

/** Fills shared memory with pages of every kind; the same bytes for the same arguments. */
export function samplePages(pageSize: number, pages: number): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(pages * pageSize);
  const bytes = new Uint8Array(memory);
  const text = new TextEncoder().encode(
    Array.from({ length: 6000 }, (_, line) => `line ${line * 7919} of a log that goes on\n`).join(
      "",
    ),
  );
  const code = readFileSync(process.execPath).subarray(1 << 21, (1 << 21) + (1 << 20));
  const compressed = deflateRawSync(code, { level: 9 });
  const kinds: ((page: Uint8Array, index: number) => void)[] = [
    (page, index) => fill(page, text, index * 977),
    (page, index) => fill(page, code, index * 4096),
    (page) => page.fill(0),
    (page) => randomFillSync(page),
    (page, index) => fill(page, compressed, index * 1234),
    // One bit more than the page two rounds before.
    (page, index) => {
      fill(page, code, 8192);
      page[index % page.length] = (page[index % page.length] ?? 0) ^ 1;
    },
    (page, index) => page.fill(index & 0xff),
  ];
  for (let page = 0; page < pages; page++) {
    // The last third is all random, so that whole packets cannot be compressed.
    const kind = page > (pages * 2) / 3 ? kinds[3] : kinds[Math.floor(page / 3) % kinds.length];
    kind?.(bytes.subarray(page * pageSize, (page + 1) * pageSize), page);
  }
  return memory;
}

function fill(page: Uint8Array, source: Uint8Array, from: number): void {
  for (let done = 0; done < page.length;) {
    const start = (from + done) % source.length;
    const piece = source.subarray(start, Math.min(source.length, start + page.length - done));
    page.set(piece, done);
    done += piece.length;
  }
}

/** Packets over `pages` pages: full ones, single pages, scattered ones, and pages that come again. */
export function packetsOf(pages: number, pagesMax: number): Uint32Array[] {
  const packets: Uint32Array[] = [];
  for (let first = 0; first < pages; first += pagesMax) {
    const count = Math.min(pagesMax, pages - first);
    packets.push(Uint32Array.from({ length: count }, (_, index) => first + index));
  }
  packets.push(Uint32Array.of(0), Uint32Array.of(pages - 1));
  packets.push(
    Uint32Array.from(
      { length: Math.min(pagesMax, pages >> 1) },
      (_, index) => pages - 1 - 2 * index,
    ),
  );
  return packets;
}
