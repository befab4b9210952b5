import { describe, expect, test } from "bun:test";
import type { SyncMode } from "../../mod.ts";
import { explore, meantMemory, orderlySource, type Source } from "./sync_orders.ts";

const modes: readonly SyncMode[] = ["round", "section"];
const ROUNDS = 3;

/** Each source that differs from an orderly one at one place of one connection, and its name. */
function* disorderlySources(source: Source): Generator<[name: string, source: Source]> {
  const { main, channels } = source;
  for (const [at, token] of main.entries()) {
    yield [`without ${token} ${at}`, { ...source, main: main.toSpliced(at, 1) }];
    yield [`with ${token} ${at} twice`, { ...source, main: main.toSpliced(at, 0, token) }];
    const next = main[at + 1];
    if (next === undefined) continue;
    const exchanged = main.toSpliced(at, 2, next, token);
    yield [`with ${token} ${at} and the next one exchanged`, { ...source, main: exchanged }];
  }
  for (const [index, channel] of channels.entries()) {
    const changed = (tokens: typeof channel): Source => ({
      ...source,
      channels: channels.with(index, tokens),
    });
    for (const [at, token] of channel.entries()) {
      const name = token === "SYNC" ? token : `page ${token.page}`;
      if (token === "SYNC") {
        yield [`channel ${index} without SYNC ${at}`, changed(channel.toSpliced(at, 1))];
        yield [`channel ${index} with SYNC ${at} twice`, changed(channel.toSpliced(at, 0, token))];
      } else {
        yield [
          `channel ${index} with ${name} ${at} behind its last SYNC`,
          changed([...channel.toSpliced(at, 1), token]),
        ];
      }
      yield [`channel ${index} ending before ${name} ${at}`, changed(channel.slice(0, at))];
    }
  }
}

describe.each(modes)("sync points by %s", (mode) => {
  const source = orderlySource(mode, ROUNDS);

  test("every order in which the connections are read gives the memory that was meant", () => {
    const { confirmed, errors, states } = explore(source);
    expect([...confirmed]).toEqual([meantMemory(source)]);
    expect([...errors]).toEqual([]);
    expect(states).toBeGreaterThan(100);
  });

  test("a source that breaks the order at one place gets the memory it meant, or an error", () => {
    const wrong: string[] = [];
    let refused = 0;
    for (const [name, other] of disorderlySources(source)) {
      const { confirmed, errors } = explore(other);
      if (errors.size > 0) refused++;
      // What it left out it did not mean; what it sent must be there as if in order.
      const meant = meantMemory(other);
      if ([...confirmed].some((memory) => memory !== meant)) wrong.push(name);
    }
    expect(wrong).toEqual([]);
    expect(refused).toBeGreaterThan(20);
  });
});

test("a model without the rule at the end confirms what is not there", () => {
  // The model can fail: pages that no SYNC covers are in time in one schedule and late in another.
  const source = orderlySource("round", 1);
  const late: Source = {
    main: ["MARKER", "EOS", "EOS", "END"],
    channels: source.channels.map((channel) => channel.slice(0, -1)),
  };
  expect([...explore(late).errors].toSorted()).toEqual([
    "a channel has another packet",
    "a channel has pages that no SYNC covers",
  ]);
  expect(explore(late).confirmed.size).toBe(0);
});
