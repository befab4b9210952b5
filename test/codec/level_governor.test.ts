import { expect, test } from "bun:test";

import { LevelGovernor } from "../../lib/engine/level_governor.ts";

const steps = [-1, 1, 3, 5, 9];

/** What a packet takes at each level, in milliseconds; sending gets shorter as the level rises. */
const encodeMs = new Map([
  [-1, 1],
  [1, 2],
  [3, 4],
  [5, 8],
  [9, 16],
]);

/** Runs packets over a network of the given slowness and returns the levels in order of use. */
function levelsOver(governor: LevelGovernor, networkMs: number, packets: number): number[] {
  const used: number[] = [governor.level];
  for (let packet = 0; packet < packets; packet++) {
    const work = encodeMs.get(governor.level) ?? 0;
    // Encoding overlaps with the network: only what the network still needs is waited for.
    if (governor.observe(work, Math.max(0.02, networkMs - work))) used.push(governor.level);
  }
  return used;
}

test("LevelGovernor: raises the level step by step while the network is the bottleneck", () => {
  expect(levelsOver(new LevelGovernor(steps, 1), 100, 500)).toEqual([1, 3, 5, 9]);
});

test("LevelGovernor: lowers the level to the lowest while the processor is the bottleneck", () => {
  expect(levelsOver(new LevelGovernor(steps, 5), 0, 500)).toEqual([5, 3, 1, -1]);
});

test("LevelGovernor: follows a network that gets slower and faster again", () => {
  const governor = new LevelGovernor(steps, 1);
  expect(levelsOver(governor, 100, 500).at(-1)).toBe(9);
  expect(levelsOver(governor, 0, 500).at(-1)).toBe(-1);
  expect(levelsOver(governor, 100, 5000).at(-1)).toBe(9);
});

test("LevelGovernor: settles beside a level that is too high instead of trying it for ever", () => {
  // Level 5 leaves no time for sending, level 3 leaves half of it.
  const changes = levelsOver(new LevelGovernor(steps, 1), 8, 50_000);
  expect(changes.slice(0, 4)).toEqual([1, 3, 5, 3]);
  // Of about 6000 windows.
  expect(changes.length).toBeLessThan(100);
});

test("LevelGovernor: keeps its level while both are busy, and refuses a level that is no step", () => {
  expect(levelsOver(new LevelGovernor(steps, 3), 5, 500)).toEqual([3]);
  expect(() => new LevelGovernor(steps, 2)).toThrow(RangeError);
});
