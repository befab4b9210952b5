import { expect, test } from "bun:test";
import type { Resources } from "./kit/resources.ts";
import { fixtureResult } from "./kit/subprocess.ts";

test("20 transfers in one process, some cut off, leave no thread, descriptor or native context", async () => {
  const result = (await fixtureResult("many_transfers", [], {
    timeoutMs: 110_000,
    // With one heap, what is freed is used again; several of them grow for a while.
    env: { MALLOC_ARENA_MAX: "1" },
  })) as {
    warmMib: number;
    endMib: number;
    start: Resources;
    end: Resources;
  };
  expect(result.end).toEqual(result.start);
  // Codec contexts and buffers of one session take above 10 MiB here: 15 of them would show.
  expect(result.endMib - result.warmMib).toBeLessThan(80);
}, 120_000);
