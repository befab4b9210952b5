/**
 * Payloads that a broken or hostile sender could make. Whatever they are: an error of the codec, and
 * no byte outside the pages of the packet.
 */
import { expect, test } from "bun:test";
import * as fc from "fast-check";
import { gzipSync, deflateRawSync, deflateSync } from "node:zlib";

import { CodecError, PageStreamDecoder, PageStreamEncoder } from "../../mod.ts";
import { samplePages, waysHere, type Way } from "./codec_pages.ts";

const pageSize = 4096;
const memory = samplePages(pageSize, 48);
/** Pages 4 to 23 of 32: there is memory before and behind that must stay as it is. */
const pages = Uint32Array.from({ length: 20 }, (_, index) => 4 + index);
const scattered = Uint32Array.from({ length: 8 }, (_, index) => 4 + 2 * index);
const guard = 0xa5;

interface Outcome {
  readonly error: unknown;
  readonly target: Uint8Array;
}

/** Decodes payloads one after another and checks the pages around; the first error ends it. */
function decodeAll(way: Way, payloads: readonly Uint8Array[], targetPages = pages): Outcome {
  const copy = new SharedArrayBuffer(32 * pageSize);
  const target = new Uint8Array(copy).fill(guard);
  let error: unknown;
  {
    using decoder = new PageStreamDecoder({
      memory: copy,
      compression: { method: way.method, engine: way.engine },
    });
    try {
      for (const payload of payloads) decoder.decode(payload, targetPages);
    } catch (caught) {
      error = caught;
    }
  }
  const inside = new Set(targetPages);
  for (let page = 0; page < 32; page++) {
    if (inside.has(page)) continue;
    const from = page * pageSize;
    if (target.subarray(from, from + pageSize).some((byte) => byte !== guard)) {
      throw new Error(`page ${page} was written to, it is not in the packet`);
    }
  }
  return { error, target };
}

function encode(way: Way, count = 1): Uint8Array[] {
  using encoder = new PageStreamEncoder({
    memory,
    compression: { method: way.method, engine: way.engine },
  });
  return Array.from({ length: count }, () => Uint8Array.from(encoder.encode(pages)));
}

function expectRefused(outcome: Outcome, text = ""): void {
  expect(outcome.error).toBeInstanceOf(CodecError);
  expect((outcome.error as CodecError).code).toStartWith("ERR_MULTIFD_CODEC");
  expect((outcome.error as CodecError).message).toContain(text);
}

const coded = waysHere().filter(({ method }) => method !== "none");
const stateful = coded.filter(({ method }) => method === "zlib" || method === "zstd");

for (const way of waysHere()) {
  const name = `codec/${way.method}/${way.engine ?? "raw"}`;

  test(`${name}: a payload cut short anywhere is refused`, () => {
    const [payload = new Uint8Array()] = encode(way);
    const cuts = [0, 1, 2, 3, 4, 10, 79, 80, 81, payload.length >> 1, payload.length - 1];
    for (const cut of cuts) {
      const outcome = decodeAll(way, [payload.subarray(0, cut)]);
      // What follows the last page of a stream may be no more than the marker of a flush.
      const marker = way.method === "zlib" || way.method === "zstd";
      if (marker && cut === payload.length - 1 && outcome.error === undefined) continue;
      expectRefused(outcome);
    }
  });

  test(`${name}: bytes behind the payload are refused`, () => {
    const [payload = new Uint8Array()] = encode(way);
    // A stream may take a single byte for the start of its next block.
    const isStream = way.method === "zlib" || way.method === "zstd";
    for (const extra of isStream ? [5000] : [1, 5000]) {
      const longer = new Uint8Array(payload.length + extra).fill(0xff);
      longer.set(payload);
      expectRefused(decodeAll(way, [longer]));
    }
  });

  test(`${name}: a payload of fewer or more pages than the packet is refused`, () => {
    const [payload = new Uint8Array()] = encode(way);
    for (const wrong of [pages.subarray(0, 19), Uint32Array.from([...pages, 24])]) {
      expectRefused(decodeAll(way, [payload], wrong));
    }
  });

  test(`${name}: random changes never write outside the packet's pages`, () => {
    const payloads = encode(way, 2);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        (changes, narrow) => {
          const damaged = payloads.map((payload) => Uint8Array.from(payload));
          for (const [place, value] of changes) {
            const payload = damaged[place % damaged.length];
            if (payload !== undefined) payload[(place >> 3) % payload.length] = value;
          }
          const { error } = decodeAll(way, damaged, narrow ? scattered : pages);
          return error === undefined || error instanceof CodecError;
        },
      ),
      { numRuns: 60 },
    );
  });
}

for (const way of stateful) {
  test(`codec/${way.method}/${way.engine}: a payload without those before it is refused`, () => {
    const payloads = encode(way, 2);
    expectRefused(decodeAll(way, payloads.slice(1)));
  });
}

for (const way of coded.filter(({ method }) => method === "qpl" || method === "uadk")) {
  const name = `codec/${way.method}/${way.engine}`;
  const content = new Uint8Array(memory, 0, pageSize);
  const stream = way.method === "qpl" ? deflateRawSync(content) : deflateSync(content);

  test(`${name}: lengths of 0, above a page, or of another sum are refused`, () => {
    for (const [lengths, reason] of [
      [[0, pageSize], "must be 1 to 4096"],
      [[pageSize + 1, pageSize], "must be 1 to 4096"],
      [[0xffff_ffff, pageSize], "must be 1 to 4096"],
      [[pageSize, pageSize - 1], "the packet has"],
    ] as const) {
      const payload = paged([...lengths], [content, content]);
      expectRefused(decodeAll(way, [payload], pages.subarray(0, 2)), reason);
    }
  });

  test(`${name}: a page that inflates to less or more than a page is refused`, () => {
    for (const bytes of [1, 4095, 4097, 1 << 20]) {
      const source = new Uint8Array(bytes);
      const bomb = way.method === "qpl" ? deflateRawSync(source) : deflateSync(source);
      expectRefused(decodeAll(way, [paged([bomb.length], [bomb])], pages.subarray(0, 1)));
    }
  });

  test(`${name}: a whole stream of another library is taken`, () => {
    const target = pages.subarray(0, 2);
    const outcome = decodeAll(way, [paged([stream.length, 4096], [stream, content])], target);
    expect(outcome.error).toBeUndefined();
    const got = outcome.target.subarray(4 * pageSize, 6 * pageSize);
    expect(Buffer.from(got)).toEqual(Buffer.concat([content, content]));
  });

  if (way.method === "uadk") {
    test(`${name}: a wrong Adler-32 and a wrong zlib header are refused`, () => {
      for (const [place, reason] of [
        [stream.length - 1, "Adler-32"],
        [0, "zlib header"],
      ] as const) {
        const wrong = Uint8Array.from(stream);
        wrong[place] = (wrong[place] ?? 0) ^ 1;
        const payload = paged([wrong.length], [wrong]);
        expectRefused(decodeAll(way, [payload], pages.subarray(0, 1)), reason);
      }
    });
  }
}

for (const way of coded.filter(({ method }) => method === "qatzip")) {
  const name = `codec/qatzip/${way.engine}`;
  const content = Buffer.from(new Uint8Array(memory, 0, 2 * pageSize));
  const target = pages.subarray(0, 2);

  test(`${name}: members of any gzip are taken, of any size, with names and comments`, () => {
    const half = content.subarray(0, pageSize);
    const named = gzipSync(half);
    const withName = Buffer.concat([
      named.subarray(0, 3),
      Buffer.from([0x18]), // FNAME and FCOMMENT
      named.subarray(4, 10),
      Buffer.from("name\0comment\0"),
      named.subarray(10),
    ]);
    for (const payload of [
      gzipSync(content),
      Buffer.concat([gzipSync(half), gzipSync(content.subarray(pageSize))]),
      Buffer.concat([withName, gzipSync(content.subarray(pageSize))]),
    ]) {
      for (const places of [target, Uint32Array.of(4, 9)]) {
        const outcome = decodeAll(way, [payload], places);
        expect(outcome.error).toBeUndefined();
        const [first = 0, second = 0] = places;
        const got = [first, second].map((page) =>
          outcome.target.subarray(page * pageSize, (page + 1) * pageSize),
        );
        expect(Buffer.concat(got)).toEqual(content);
      }
    }
  });

  test(`${name}: wrong checksums and lengths are refused`, () => {
    const whole = gzipSync(content);
    for (const [at, reason] of [
      [whole.length - 8, "CRC-32"],
      [whole.length - 4, "announces"],
      [0, "gzip members"],
    ] as const) {
      const wrong = Uint8Array.from(whole);
      wrong[at] = (wrong[at] ?? 0) ^ 1;
      expectRefused(decodeAll(way, [wrong], target), reason);
    }
    for (const bomb of [gzipSync(Buffer.alloc(1 << 24)), gzipSync(Buffer.alloc(pageSize))]) {
      expectRefused(decodeAll(way, [bomb], target));
    }
  });

  test(`${name}: sizes in the QZ field that are not those of the member are refused`, () => {
    const [payload = new Uint8Array()] = encode(way);
    for (const at of [16, 17, 20, 21]) {
      const wrong = Uint8Array.from(payload);
      wrong[at] = (wrong[at] ?? 0) ^ 1;
      expectRefused(decodeAll(way, [wrong]));
    }
  });
}

for (const way of coded.filter(({ method }) => method === "qpl" || method === "uadk")) {
  test(`${way.method} with ${way.engine}: of a page that comes twice in a packet the last content stays`, () => {
    const shared = new SharedArrayBuffer(8 * pageSize);
    const page = new Uint8Array(shared, 2 * pageSize, pageSize);
    const compression = { method: way.method, engine: way.engine };
    using encoder = new PageStreamEncoder({ memory: shared, compression });
    const noise = crypto.getRandomValues(new Uint8Array(pageSize));
    const threes = new Uint8Array(pageSize).fill(3);
    const text = Uint8Array.from({ length: pageSize }, (_, at) => at % 61);
    // Compressed and raw, in both orders.
    for (const [first, last] of [
      [text, threes],
      [text, noise],
      [noise, text],
    ] as const) {
      const halves = [first, last].map((content) => {
        page.set(content);
        return encoder.encode(Uint32Array.of(2)).slice();
      });
      const lengths = halves.map((half) => half.subarray(0, 4));
      const payload = Buffer.concat([...lengths, ...halves.map((half) => half.subarray(4))]);
      page.fill(0);
      using decoder = new PageStreamDecoder({ memory: shared, compression });
      decoder.decode(payload, Uint32Array.of(2, 2));
      expect(Buffer.compare(page, last)).toBe(0);
    }
  });
}

/** A payload of qpl or uadk with these lengths, whatever the pages have. */
function paged(lengths: readonly number[], streams: readonly Uint8Array[]): Uint8Array {
  const head = Buffer.alloc(4 * lengths.length);
  for (const [index, length] of lengths.entries()) head.writeUInt32BE(length, 4 * index);
  return Buffer.concat([head, ...streams]);
}
