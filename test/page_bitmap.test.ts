import { expect, test } from "bun:test";
import { array, assert, constantFrom, nat, oneof, property, record, tuple } from "fast-check";
import { Worker } from "node:worker_threads";
import { PageBitmap } from "../mod.ts";

test("PageBitmap.set() and clear() tell whether they changed the bit", () => {
  const bitmap = new PageBitmap(100);
  expect(bitmap.has(64)).toBe(false);
  expect(bitmap.set(64)).toBe(true);
  expect(bitmap.set(64)).toBe(false);
  expect(bitmap.has(64)).toBe(true);
  expect(bitmap.clear(64)).toBe(true);
  expect(bitmap.clear(64)).toBe(false);
  expect(bitmap.count()).toBe(0);
});

test("PageBitmap keeps bit i in bit i mod 8 of byte i div 8", () => {
  const bitmap = new PageBitmap(40);
  for (const page of [0, 9, 31, 39]) bitmap.set(page);
  expect([...new Uint8Array(bitmap.buffer, 0, 5)]).toEqual([1, 2, 0, 0x80, 0x80]);
});

test("PageBitmap.bytesFor() counts whole 64-bit words", () => {
  expect([0, 1, 64, 65].map((pages) => PageBitmap.bytesFor(pages))).toEqual([0, 8, 8, 16]);
});

test("PageBitmap rejects pages outside of it", () => {
  const bitmap = new PageBitmap(33);
  for (const page of [-1, 33, 64, NaN, Infinity]) {
    expect(() => bitmap.set(page)).toThrow(RangeError);
    expect(() => bitmap.clear(page)).toThrow(RangeError);
    expect(() => bitmap.has(page)).toThrow(RangeError);
  }
  expect(() => bitmap.setRange(30, 34)).toThrow(RangeError);
  expect(() => bitmap.clearRange(-1, 3)).toThrow(RangeError);
  expect(bitmap.count()).toBe(0);
});

test("PageBitmap rejects a length that is no whole number and a buffer that is too short", () => {
  for (const pages of [-1, 1.5, NaN, Infinity]) {
    expect(() => new PageBitmap(pages)).toThrow(RangeError);
  }
  expect(() => new PageBitmap(65, new SharedArrayBuffer(8))).toThrow(RangeError);
  expect(() => new PageBitmap(8, new SharedArrayBuffer(8), 2)).toThrow(RangeError);
});

test("PageBitmap ignores bits beyond its last page in a foreign buffer", () => {
  const buffer = new SharedArrayBuffer(8);
  new Uint8Array(buffer).fill(0xff);
  const bitmap = new PageBitmap(10, buffer);
  expect(bitmap.count()).toBe(10);
  expect([...bitmap.runs()]).toEqual([{ start: 0, end: 10 }]);
});

test("PageBitmap agrees with a set of numbers", () => {
  const pages = 200;
  const range = tuple(nat(pages), nat(pages)).map((ends) => ends.toSorted((a, b) => a - b));
  const step = oneof(
    record({ kind: constantFrom("set", "clear"), page: nat(pages - 1) }),
    record({ kind: constantFrom("setRange", "clearRange"), range }),
  );
  assert(
    property(array(step, { maxLength: 40 }), (steps) => {
      const bitmap = new PageBitmap(pages);
      const model = new Set<number>();
      for (const action of steps) {
        const [start = 0, end = 0] =
          "page" in action ? [action.page, action.page + 1] : action.range;
        const setting = action.kind.startsWith("set");
        if ("page" in action) {
          expect(setting ? bitmap.set(start) : bitmap.clear(start)).toBe(
            setting ? !model.has(start) : model.has(start),
          );
        } else if (setting) bitmap.setRange(start, end);
        else bitmap.clearRange(start, end);
        for (let page = start; page < end; page++) {
          if (setting) model.add(page);
          else model.delete(page);
        }
      }
      const listed = [...bitmap.runs()].flatMap(({ start, end }) =>
        Array.from({ length: end - start }, (_, index) => start + index),
      );
      expect(listed).toEqual([...model].toSorted((a, b) => a - b));
      expect(bitmap.count()).toBe(model.size);
      for (const { start, end } of bitmap.runs()) {
        expect(bitmap.nextSet(start)).toBe(start);
        expect(bitmap.nextClear(start)).toBe(end);
      }
    }),
    { numRuns: 200 },
  );
});

test("PageBitmap.drainInto() moves all bits and keeps those of the target", () => {
  const dirty = new PageBitmap(70);
  const fetched = new PageBitmap(70);
  dirty.setRange(60, 70);
  fetched.set(1);
  dirty.drainInto(fetched);
  expect(dirty.count()).toBe(0);
  expect([...fetched.runs()]).toEqual([
    { start: 1, end: 2 },
    { start: 60, end: 70 },
  ]);
  expect(() => dirty.drainInto(new PageBitmap(71))).toThrow(RangeError);
});

test("PageBitmap.drainInto() loses no bit that another thread sets meanwhile", async () => {
  const pages = 4096;
  const dirty = new PageBitmap(pages);
  const done = new Int32Array(new SharedArrayBuffer(8));
  // The other thread counts how often it changed a bit from clear to set. Every such change must be
  // in exactly one drain: fewer drained bits would be lost ones, more would be invented ones.
  const worker = new Worker(
    `const { workerData } = require("node:worker_threads");
     const words = new Int32Array(workerData.bitmap);
     const done = new Int32Array(workerData.done);
     for (let round = 0; round < 50; round++) {
       for (let page = 0; page < ${pages}; page++) {
         const bit = 1 << (page & 31);
         if ((Atomics.or(words, page >>> 5, bit) & bit) === 0) Atomics.add(done, 1, 1);
       }
     }
     Atomics.store(done, 0, 1);`,
    { eval: true, workerData: { bitmap: dirty.buffer, done: done.buffer } },
  );
  let drained = 0;
  const drain = (): void => {
    const fetched = new PageBitmap(pages);
    dirty.drainInto(fetched);
    drained += fetched.count();
  };
  const deadline = performance.now() + 20_000;
  while (Atomics.load(done, 0) === 0 && performance.now() < deadline) {
    drain();
    await Bun.sleep(0);
  }
  drain();
  await worker.terminate();
  expect(Atomics.load(done, 0)).toBe(1);
  expect(drained).toBe(Atomics.load(done, 1));
  expect(drained).toBeGreaterThanOrEqual(pages);
});
