import { expect, test } from "bun:test";
import { RawSource } from "./kit/raw_peer.ts";
import { rejectionOf } from "./kit/errors.ts";
import { expectReleased, resourcesNow, type Resources } from "./kit/resources.ts";
import { fixtureResult } from "./kit/subprocess.ts";
import { listen } from "../mod.ts";

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

test("Receiver.complete() rejects a flood of connections that say nothing, and closes all of them", async () => {
  const before = resourcesNow();
  {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      timeouts: { acceptMs: 30_000, connectMs: 30_000, idleMs: 30_000, stallMs: 30_000 },
    });
    const failure = rejectionOf(receiver.complete());
    using peer = new RawSource(receiver.endpoint);
    for (let batch = 0; batch < 60; batch++) {
      const opened = Array.from({ length: 10 }, () => peer.open());
      const outcomes = await Promise.allSettled(opened);
      if (outcomes.some(({ status }) => status === "rejected")) break;
    }
    expect(await failure).toMatchObject({
      code: "ERR_MULTIFD_LIMIT_CONNECTIONS",
      side: "destination",
      phase: "connect",
    });
  }
  await expectReleased(before);
});
