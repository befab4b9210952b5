import { expect, test } from "bun:test";
import { fixtureResult } from "./kit/subprocess.ts";

for (const pageSize of [4096, 65_536]) {
  test(`multifd/sparse-block-of-5-GiB/${pageSize}`, async () => {
    const result = await fixtureResult("large_block", [String(pageSize)], { timeoutMs: 100_000 });
    const { written } = result as { written: number };
    expect(written).toBeGreaterThan(12);
    expect(result).toMatchObject({ wrong: 0, segments: 6 });
    // Nothing but the written pages travelled, however often a range named them.
    const { normalPages } = result as { normalPages: number };
    if (pageSize > 4096) expect(normalPages).toBe(written);
    else expect(normalPages).toBeGreaterThanOrEqual(written);
  }, 120_000);
}
