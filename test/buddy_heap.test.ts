import { expect, test } from "bun:test";
import * as fc from "fast-check";
import { BuddyHeap, HEAP_BLOCK_BYTES_MAX } from "../lib/engine/buddy_heap.ts";

test("BuddyHeap gives out ranges that never overlap, and takes everything back", () => {
  const operations = fc.array(
    fc.record({ bytes: fc.integer({ min: 0, max: 3_000_000 }), release: fc.nat(1000) }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(operations, (list) => {
      const heap = new BuddyHeap(4 * HEAP_BLOCK_BYTES_MAX);
      const held: { at: number; bytes: number }[] = [];
      for (const { bytes, release } of list) {
        const at = heap.take(bytes);
        if (at >= 0) {
          expect(at + bytes).toBeLessThanOrEqual(heap.buffer.byteLength);
          const clash = held.find((other) => at < other.at + other.bytes && other.at < at + bytes);
          expect(clash).toBeUndefined();
          held.push({ at, bytes: Math.max(1, bytes) });
        }
        if (release % 2 === 0 && held.length > 0) {
          const [gone] = held.splice(release % held.length, 1);
          heap.release(gone!.at);
        }
      }
      for (const { at } of held) heap.release(at);
      // Everything has been joined again: the largest blocks are all there.
      const largest = Array.from({ length: 5 }, () => heap.take(HEAP_BLOCK_BYTES_MAX));
      expect(largest.filter((at) => at >= 0).length).toBe(4);
    }),
    { numRuns: 60 },
  );
});

test("BuddyHeap gives out what was freed last, and page-aligned memory for pages", () => {
  const heap = new BuddyHeap(HEAP_BLOCK_BYTES_MAX);
  const first = heap.take(1_048_576);
  heap.take(1_048_576);
  heap.release(first);
  expect(heap.take(1_048_576)).toBe(first);
  for (const bytes of [4096, 5000, 1_048_576]) expect(heap.take(bytes) % 4096).toBe(0);
});

test("BuddyHeap.take() says when there is no room, in any thread's object", () => {
  const heap = new BuddyHeap(1);
  const other = new BuddyHeap(heap.buffer);
  expect(heap.take(HEAP_BLOCK_BYTES_MAX)).toBeGreaterThan(0);
  expect(other.take(1)).toBe(-1);
});
