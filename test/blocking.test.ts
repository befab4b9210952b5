import { expect, test } from "bun:test";
import { BlockingReceiver } from "../lib/session/listen_blocking.ts";
import { BlockingSender } from "../lib/session/connect_blocking.ts";
import { connect, listen, RamBlock, Receiver, Sender } from "../mod.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { expectReleased, resourcesNow, settledResources } from "./kit/resources.ts";
import { TestThread } from "./kit/threads.ts";

test("connectBlocking() and listenBlocking() move a block between two workers", async () => {
  const source = RamBlock.allocate("pc.ram", 400 * 4096);
  const target = RamBlock.allocate("pc.ram", 400 * 4096);
  fillBlock(source, 4);
  target.view(0, target.bytes).fill(0xee);
  const shared = new SharedArrayBuffer(4);
  const before = resourcesNow();
  {
    const thread = (side: string, block: RamBlock): TestThread =>
      new TestThread("blocking_thread", {
        side,
        block: block.share(),
        endpoint: "127.0.0.1:0",
        shared,
      });
    await using receiver = thread("receiver", target);
    await using sender = thread("sender", source);
    const [sent, received] = await Promise.all([sender.result(), receiver.result()]);
    const { refused, ...counted } = sent as {
      refused: string[];
      normalPages: number;
      zeroPages: number;
    };
    expect(counted).toEqual(received as typeof counted);
    expect(refused).toEqual([
      "RangeError: Cannot queue pages: there is no RAM block vga.ram",
      "RangeError: Cannot queue pages 400 to 401: RAM block pc.ram has 400 pages",
    ]);
    const { normalPages, zeroPages } = counted;
    expect(normalPages + zeroPages).toBe(400 + 5 + 2 + 2);
  }
  expect(differingPages(source, target)).toEqual([]);
  await expectReleased(before);
});

test("blocking senders and receivers have the verbs of the others", () => {
  const verbs = (made: { readonly prototype: object }): string[] =>
    Object.getOwnPropertyNames(made.prototype).toSorted();
  expect(verbs(BlockingSender)).toEqual(verbs(Sender));
  // Where blocks are announced nobody can wait but who receives them, and the endpoint is no getter.
  const own = new Set(["announced", "endpoint"]);
  expect(verbs(BlockingReceiver)).toEqual(verbs(Receiver).filter((name) => !own.has(name)));
});

test("listenBlocking() fails like listen(): the port is in use, and nothing is left", async () => {
  await using occupied = await listen({ endpoint: "127.0.0.1:0" });
  const before = await settledResources();
  const block = RamBlock.allocate("pc.ram", 4096);
  {
    await using second = new TestThread("blocking_thread", {
      side: "receiver",
      block: block.share(),
      endpoint: occupied.endpoint,
      shared: new SharedArrayBuffer(4),
    });
    expect(await second.result()).toEqual({ failure: "ERR_MULTIFD_SYSTEM" });
  }
  await expectReleased(before);
});

test("connect() and listen() leave the caller's event loop free while pages move", async () => {
  const block = RamBlock.allocate("pc.ram", 1024 * 4096);
  for (let page = 0; page < block.pages; page++)
    fillPage(block.view(page * 4096, 4096), "random", page);
  await using receiver = await listen({ endpoint: "127.0.0.1:0" });
  await using sender = await connect({
    endpoint: receiver.endpoint,
    blocks: [block],
    maxBandwidth: 8 * 1_048_576,
  });
  let ticks = 0;
  let seen = 0;
  const timer = setInterval(() => {
    ticks++;
    seen = Math.max(seen, sender.statistics().pageBytes);
  }, 1);
  await sender.send();
  const duringSend = ticks;
  await Promise.all([sender.complete(), receiver.complete()]);
  clearInterval(timer);
  // Half a second of sending at that limit; a blocked loop would have had no tick at all.
  expect(duringSend).toBeGreaterThan(5);
  expect(seen).toBeGreaterThan(0);
});

test("queuePages() sends single pages, and refuses one that is not there", async () => {
  const source = RamBlock.allocate("pc.ram", 16 * 4096);
  fillBlock(source, 3);
  await using receiver = await listen({ endpoint: "127.0.0.1:0" });
  const { endpoint } = receiver;
  await using sender = await connect({ endpoint, blocks: [source], zeroPageDetection: "none" });
  await expect(sender.queuePages("pc.ram", Uint32Array.of(3, 16))).rejects.toThrow(
    "Cannot queue pages 16 to 17: RAM block pc.ram has 16 pages",
  );
  await sender.queuePages(source, Uint32Array.of(3, 7));
  const [{ normalPages }] = await Promise.all([sender.complete(), receiver.complete()]);
  expect(normalPages).toBe(2);
  const missing = receiver.blocks.flatMap((block) => differingPages(source, block));
  expect(missing).toContain(5);
  expect(missing).not.toContain(3);
});
