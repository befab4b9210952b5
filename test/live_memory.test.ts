import { expect, test } from "bun:test";
import { RamBlock } from "../mod.ts";
import { waysHere } from "./codec/codec_pages.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { TestThread, until } from "./kit/threads.ts";
import { transfer } from "./kit/transfer.ts";

// Every method with the library a sender would choose, and once with each detection of zero pages.
const methods = [...new Set(waysHere().map(({ method }) => method))];

for (const compression of methods) {
  for (const zeroPageDetection of compression === "none"
    ? (["multifd", "legacy", "none"] as const)
    : (["multifd"] as const)) {
    test(`multifd/live/${compression}/${zeroPageDetection}: pages change in every round, the last is quiet`, async () => {
      const block = RamBlock.allocate("pc.ram", 700 * 4096);
      fillBlock(block, 1);
      const gate = new Int32Array(new SharedArrayBuffer(16));
      const hammers = [1, 2].map(
        (seed) => new TestThread("page_hammer", { block: block.share(), gate: gate.buffer, seed }),
      );
      try {
        await until("both write", () => Atomics.load(gate, 2) === 2);
        const passes: number[] = [];
        const { blocks } = await transfer({
          both: { compression, channels: 3 },
          sender: { blocks: [block], zeroPageDetection },
          send: async (sender) => {
            for (let round = 0; round < 3; round++) {
              await sender.send();
              passes.push(Atomics.load(gate, 1));
            }
            await sender.send({ rounds: 2 });
            Atomics.store(gate, 0, 1);
            await Promise.all(hammers.map((hammer) => hammer.result()));
            await sender.send();
          },
        });
        expect(passes.at(-1)).toBeGreaterThan(0);
        expect(differingPages(block, blocks[0]!)).toEqual([]);
      } finally {
        await Promise.all(hammers.map((hammer) => hammer[Symbol.asyncDispose]()));
      }
    });
  }
}
