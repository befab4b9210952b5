import { expect, test } from "bun:test";
import { connect, listen, RamBlock } from "../mod.ts";
import { CutProxy } from "./kit/cut_proxy.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillPage, randomNumbers } from "./kit/page_content.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";
import { transfer } from "./kit/transfer.ts";

const block = RamBlock.allocate("pc.ram", 256 * 4096);
for (let page = 0; page < block.pages; page++) {
  fillPage(block.view(page * 4096, 4096), "random", page);
}
/** Everything a sender writes in this test: pages, headers, and the main stream. */
const streamBytes = block.bytes + 20_000;
const timeouts = { connectMs: 15_000, idleMs: 15_000, stallMs: 15_000 } as const;
/** A receiver goes on waiting for connections that broke before they said who they are. */
const receiverTimeouts = { ...timeouts, acceptMs: 1000, connectMs: 1000 } as const;

// In the first bytes, where sessions are set up, and anywhere.
const next = randomNumbers(2026);
const cuts = [1, 30, 70, 200, 1500, 3000].concat(
  Array.from({ length: 5 }, () => next() % (streamBytes - 16_000)),
);

test("multifd/cut: both ends fail wherever all connections break, and nothing is left", async () => {
  await transfer({ sender: { blocks: [block] } });
  const before = resourcesNow();
  for (const [index, cut] of cuts.entries()) {
    {
      await using receiver = await listen({
        endpoint: "127.0.0.1:0",
        channels: 3,
        compression: index % 2 === 0 ? "none" : "zstd",
        timeouts: receiverTimeouts,
      });
      using proxy = new CutProxy(receiver.endpoint);
      let passed = 0;
      proxy.filter = (chunk, from) => {
        if (from === "source") passed += chunk.byteLength;
        return passed < cut ? chunk : undefined;
      };
      const receiving = rejectionOf(receiver.complete());
      const sending = rejectionOf(
        (async () => {
          await using sender = await connect({
            endpoint: proxy.endpoint,
            channels: 3,
            compression: index % 2 === 0 ? "none" : "zstd",
            blocks: [block],
            timeouts,
          });
          await sender.send();
          await sender.complete();
        })(),
      );
      const errors = await Promise.all([sending, receiving]);
      expect(errors.map(({ side }) => side)).toEqual(["source", "destination"]);
      for (const { code } of errors) {
        expect(code).toMatch(/^ERR_MULTIFD_(CHANNEL|STREAM|HANDSHAKE|TIMEOUT|PEER|SYSTEM)/);
      }
    }
    await expectReleased(before);
  }
  const { blocks } = await transfer({ sender: { blocks: [block] } });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
}, 120_000);
