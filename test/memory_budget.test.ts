import { expect, test } from "bun:test";
import { MemoryBudget, planMemory } from "../lib/session/memory_budget.ts";
import {
  connect,
  LimitError,
  listen,
  PageStreamDecoder,
  PageStreamEncoder,
  RamBlock,
} from "../mod.ts";
import { thrownBy } from "./kit/errors.ts";
import { fillBlock } from "./kit/page_content.ts";

const MIB = 1_048_576;
const promised = { heldBytesMax: undefined, method: "zstd", channels: 16, queueBytes: 0 } as const;

test("planMemory() gives windows of 25 bits, and smaller ones only where half a budget asks for it", () => {
  expect(planMemory(promised)).toEqual({ windowBits: 25, leftBytes: undefined });
  expect(planMemory({ ...promised, channels: undefined }).windowBits).toBe(25);
  for (const [heldBytesMax, channels, windowBits] of [
    [4096 * MIB, 16, 25],
    [1024 * MIB, 16, 24],
    [512 * MIB, 16, 23],
    [64 * MIB, 1, 24],
    [64 * MIB, 16, 20],
  ] as const) {
    const plan = planMemory({ ...promised, heldBytesMax, channels });
    expect(plan.windowBits).toBe(windowBits);
    expect(plan.leftBytes! + channels * 2 ** windowBits).toBeLessThan(heldBytesMax);
    expect(plan.leftBytes!).toBeGreaterThanOrEqual(heldBytesMax / 2);
  }
  for (const heldBytesMax of [0, -1, NaN, 1.5, 2 ** 60, 16 * MIB]) {
    expect(() => planMemory({ ...promised, heldBytesMax })).toThrow(RangeError);
  }
  expect(() =>
    planMemory({ ...promised, heldBytesMax: MIB, method: "none", queueBytes: MIB }),
  ).toThrow(/heldBytesMax/);
});

test("MemoryBudget takes what there is and says what there was not", () => {
  const budget = new MemoryBudget(10, 0);
  budget.take(4, "one");
  expect(budget.left).toBe(6);
  const error = thrownBy(() => budget.take(7, "another"));
  expect(error).toBeInstanceOf(LimitError);
  expect(error.message).toContain("6 are left of what option heldBytesMax allows");
});

test("zstd: windows of all levels up to 20 are taken, larger ones are a limit with a name", () => {
  const memory = new SharedArrayBuffer(4096);
  for (let level = 1; level <= 20; level++) {
    using encoder = new PageStreamEncoder({ memory, compression: { method: "zstd", level } });
    new Uint8Array(memory).fill(level);
    const payload = encoder.encode(Uint32Array.of(0)).slice();
    using decoder = new PageStreamDecoder({ memory, compression: "zstd" });
    decoder.decode(payload, Uint32Array.of(0));
  }
  const frame = (windowBits: number) =>
    Buffer.concat([
      Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, (windowBits - 10) << 3),
      Uint8Array.of((4096 << 3) & 0xff, (4096 << 3) >>> 8, 0),
      new Uint8Array(4096),
    ]);
  for (const windowBits of [25, 26, 27]) {
    using decoder = new PageStreamDecoder({ memory, compression: "zstd" });
    const decode = () => decoder.decode(frame(windowBits), Uint32Array.of(0));
    if (windowBits === 25) decode();
    else {
      const error = thrownBy(decode);
      expect(error.code).toBe("ERR_MULTIFD_LIMIT_WINDOW");
      expect(error.message).toContain("heldBytesMax");
    }
  }
});

/** What a receiver with that budget ends with, when a block is sent at a level of zstd. */
async function outcome(heldBytesMax: number, bytes: number, level: number): Promise<string> {
  const block = RamBlock.allocate("pc.ram", bytes);
  fillBlock(block, 1);
  await using receiver = await listen({
    endpoint: "127.0.0.1:0",
    compression: "zstd",
    heldBytesMax,
  });
  const compression = { method: "zstd", level } as const;
  const sending = (async () => {
    const { endpoint } = receiver;
    await using sender = await connect({ endpoint, compression, blocks: [block] });
    await sender.send();
    await sender.complete();
  })();
  const [received] = await Promise.allSettled([receiver.complete(), sending]);
  if (received.status === "fulfilled") return "complete";
  const { code, message } = received.reason as LimitError;
  return message.includes("heldBytesMax") ? code : message;
}

test("listen({ heldBytesMax }) bounds RAM and windows together, and names the option", async () => {
  expect(await outcome(64 * MIB, 2 * MIB, 1)).toBe("complete");
  expect(await outcome(64 * MIB, 62 * MIB, 1)).toBe("ERR_MULTIFD_LIMIT_HELD");
  expect(await outcome(16 * MIB, 2 * MIB, 20)).toBe("ERR_MULTIFD_LIMIT_WINDOW");
  const tooLittle = { endpoint: "127.0.0.1:0", compression: "zstd", heldBytesMax: MIB } as const;
  expect((await listen(tooLittle).catch((error: unknown) => error)) instanceof RangeError).toBe(
    true,
  );
}, 60_000);
