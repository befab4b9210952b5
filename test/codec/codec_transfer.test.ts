/**
 * Every method with every engine of this machine, over real sockets and two channels.
 */
import { expect, test } from "bun:test";

import { connect, listen, RamBlock } from "../../mod.ts";
import { samplePages, waysHere } from "./codec_pages.ts";
import { testTimeouts } from "../kit/limits.ts";

const pageSize = 4096;
const pages = 1000;

for (const { method, engine } of waysHere()) {
  test(`multifd/tcp/${method}/${engine ?? "raw"}: images are equal after two rounds`, async () => {
    const compression = { method, engine };
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      compression,
      timeouts: testTimeouts,
    });
    const block = RamBlock.fromBuffer("pc.ram", samplePages(pageSize, pages));
    await using sender = await connect({
      endpoint: receiver.endpoint,
      compression,
      timeouts: testTimeouts,
      blocks: [block],
      verify: true,
    });
    await sender.send();
    await sender.send();
    const [statistics] = await Promise.all([sender.complete(), receiver.complete()]);
    expect(statistics.rounds).toBeGreaterThanOrEqual(2);
  }, 30_000);
}
