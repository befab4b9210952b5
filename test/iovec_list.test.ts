import { expect, test } from "bun:test";
import { array, assert, integer, property } from "fast-check";
import { Arena, viewOfMemory } from "../ffi/arena.ts";
import { IOV_MAX } from "../ffi/linux.ts";
import { IovecList } from "../lib/memory/iovec_list.ts";
import { gather } from "./codec/codec_pipe.ts";

test("IovecList.consume() drops bytes from the front, wherever they end", () => {
  const arena = new Arena(4096);
  for (let at = 0; at < 4096; at++) arena.u8[at] = at * 31;
  assert(
    property(
      array(integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 20 }),
      array(integer({ min: 1, max: 150 }), { maxLength: 40 }),
      (lengths, bites) => {
        const list = new IovecList();
        const whole: number[] = [];
        let at = 0;
        for (const length of lengths) {
          list.append(arena.address + at, length);
          whole.push(...arena.u8.subarray(at, at + length));
          at += length + 7; // never neighbours
        }
        let done = 0;
        for (const bite of bites) {
          const bytes = Math.min(bite, list.bytes);
          if (bytes === 0) break;
          list.consume(bytes);
          done += bytes;
          expect(list.bytes).toBe(whole.length - done);
          const left = list.bytes === 0 ? [] : [...gather(list)];
          expect(left).toEqual(whole.slice(done));
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("IovecList holds as many entries as one system call takes", () => {
  const list = new IovecList();
  const arena = new Arena(4096);
  for (let entry = 0; entry < IOV_MAX; entry++) list.append(arena.address, 1);
  expect(list.count).toBe(IOV_MAX);
  expect(() => list.append(arena.address, 1)).toThrow(RangeError);
  list.clear();
  expect([list.count, list.bytes]).toEqual([0, 0]);
});

test("IovecList keeps addresses above 4 GiB whole", () => {
  const list = new IovecList();
  list.append(2 ** 46 + 2 ** 32 - 8, 64);
  list.consume(16);
  const entry = new BigUint64Array(2);
  // The struct as C sees it: base pointer, then length.
  new Uint8Array(entry.buffer).set(viewOfMemory(list.vectors(), 16));
  expect(entry[0]).toBe(2n ** 46n + 2n ** 32n + 8n);
  expect(entry[1]).toBe(48n);
});
