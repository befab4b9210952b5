import { expect, test } from "bun:test";
import {
  DigestError,
  PageBitmap,
  RamBlock,
  type CompressionMethod,
  type SyncMode,
  type ZeroPageDetection,
} from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { transfer } from "./kit/transfer.ts";
import { testTimeouts } from "./kit/limits.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

/** Blocks of odd lengths: less than a packet, a few packets, a packet and a page. */
function oddBlocks(pageSize = 4096): RamBlock[] {
  const lengths = { "pc.ram": 301, "/rom@etc/acpi/tables": 1, "0000:00:02.0/vga.vram": 129 };
  return Object.entries(lengths).map(([idstr, pages], index) => {
    const block = RamBlock.allocate(idstr, pages * pageSize, { pageSize });
    fillBlock(block, index + 1);
    return block;
  });
}

const pagesOf = (blocks: readonly RamBlock[]): number =>
  blocks.reduce((sum, { pages }) => sum + pages, 0);

function expectEqual(received: readonly RamBlock[], sent: readonly RamBlock[]): void {
  expect(received.map(({ idstr, bytes }) => [idstr, bytes])).toEqual(
    sent.map(({ idstr, bytes }) => [idstr, bytes]),
  );
  for (const [index, block] of sent.entries()) {
    expect([block.idstr, differingPages(block, received[index]!)]).toEqual([block.idstr, []]);
  }
}

const methods: readonly CompressionMethod[] = ["none", "zlib", "zstd"];
const detections: readonly ZeroPageDetection[] = ["multifd", "legacy", "none"];
const pageSizes = [4096, 8192, 16_384, 65_536];
const syncModes: readonly SyncMode[] = ["round", "section"];
let turn = 0;

for (const compression of methods) {
  for (const channels of [1, 2, 4]) {
    for (const zeroPageDetection of detections) {
      // What has no combination of its own takes turns, with periods that have no common factor.
      const transport = ["tcp", "unix", "tcp6"][Math.floor(turn / 3) % 3]!;
      const pageSize = pageSizes[turn % 4]!;
      const syncMode = syncModes[Math.floor(turn / 5) % 2]!;
      turn++;
      const path = [transport, compression, channels, zeroPageDetection, syncMode, pageSize];
      test(`multifd/${path.join("/")}`, async () => {
        using folder = new TemporaryFolder();
        const endpoint = {
          tcp: "127.0.0.1:0",
          tcp6: "[::1]:0",
          unix: `unix:${folder.path}/socket`,
        }[transport];
        const blocks = oddBlocks(pageSize);
        const result = await transfer({
          both: { compression, channels, uuid: "00112233-4455-6677-8899-aabbccddeeff" },
          sender: { blocks, zeroPageDetection, syncMode },
          receiver: { endpoint: endpoint ?? "", pageSize },
        });
        expectEqual(result.blocks, blocks);
        const { sent, received } = result;
        const zeroPages = blocks.reduce((sum, block) => sum + zeroPagesOf(block), 0);
        for (const statistics of [sent, received]) {
          expect(statistics).toMatchObject({
            zeroPages: zeroPageDetection === "none" ? 0 : zeroPages,
            normalPages: pagesOf(blocks) - (zeroPageDetection === "none" ? 0 : zeroPages),
            ramBytes: pagesOf(blocks) * pageSize,
            pageBytes: pagesOf(blocks) * pageSize,
          });
          expect(statistics.channels).toHaveLength(channels);
          expect(statistics.channels.every(({ syncs }) => syncs >= 2)).toBe(true);
        }
        expect(received.multifdBytes).toBe(sent.multifdBytes);
      });
    }
  }
}

function zeroPagesOf(block: RamBlock): number {
  let count = 0;
  for (let page = 0; page < block.pages; page++) {
    const view = block.view(page * block.pageSize, block.pageSize);
    if (view.every((byte) => byte === 0)) count++;
  }
  return count;
}

test("multifd/given-blocks places pages in the caller's memory, whatever the order of the lists", async () => {
  const blocks = oddBlocks();
  const targets = blocks.map(({ idstr, bytes }) => RamBlock.allocate(idstr, bytes)).toReversed();
  const result = await transfer({ sender: { blocks }, receiver: { blocks: targets } });
  expect(new Set(result.blocks)).toEqual(new Set(targets));
  expectEqual(targets.toReversed(), blocks);
});

test("multifd/given-blocks overwrites what was in them, with zero pages too", async () => {
  const blocks = oddBlocks();
  const buffers = blocks.map(({ bytes }) => new SharedArrayBuffer(bytes));
  for (const buffer of buffers) new Uint8Array(buffer).fill(0x5a);
  const targets = blocks.map(({ idstr }, index) => RamBlock.fromBuffer(idstr, buffers[index]!));
  for (const zeroPageDetection of detections) {
    for (const buffer of buffers) new Uint8Array(buffer).fill(0x5a);
    const result = await transfer({
      sender: { blocks, zeroPageDetection },
      receiver: { blocks: targets },
    });
    expectEqual(result.blocks, blocks);
  }
});

test("multifd/given-blocks can be received into again, although they were allocated as zero", async () => {
  const source = RamBlock.allocate("pc.ram", 64 * 4096);
  const target = RamBlock.allocate("pc.ram", 64 * 4096);
  fillBlock(source, 1);
  await transfer({ sender: { blocks: [source] }, receiver: { blocks: [target] } });
  source.view(0, source.bytes).fill(0);
  await transfer({ sender: { blocks: [source] }, receiver: { blocks: [target] } });
  expect(differingPages(source, target)).toEqual([]);
  // And what the caller wrote to a fresh block before it listened must not show through either.
  const fresh = RamBlock.allocate("pc.ram", 64 * 4096);
  fresh.view(8192, 4096).fill(1);
  await transfer({ sender: { blocks: [source] }, receiver: { blocks: [fresh] } });
  expect(differingPages(source, fresh)).toEqual([]);
});

test("multifd/announced-blocks can be given to the next receiver", async () => {
  const source = RamBlock.allocate("pc.ram", 64 * 4096);
  fillBlock(source, 1);
  const first = await transfer({ sender: { blocks: [source] } });
  source.view(0, source.bytes).fill(0);
  await transfer({ sender: { blocks: [source] }, receiver: { blocks: first.blocks } });
  expect(differingPages(source, first.blocks[0]!)).toEqual([]);
});

test("multifd/auto-channels takes as many channels as connect", async () => {
  for (const channels of [1, 3, "auto"] as const) {
    const blocks = oddBlocks();
    const result = await transfer({
      sender: { blocks, channels },
      receiver: { channels: "auto" },
    });
    expectEqual(result.blocks, blocks);
    expect(result.received.channels).toHaveLength(result.sent.channels.length);
  }
});

test("multifd/24-channels", async () => {
  const blocks = oddBlocks();
  // Starting 48 threads on a small machine takes its time.
  const timeouts = { ...testTimeouts, connectMs: 90_000 };
  const result = await transfer({
    both: { channels: 24 },
    sender: { blocks, timeouts },
    receiver: { timeouts },
  });
  expectEqual(result.blocks, blocks);
}, 120_000);

test("multifd/rounds sends again only what has changed", async () => {
  const block = RamBlock.allocate("pc.ram", 512 * 4096);
  // The pause must be long enough for this thread to write in it, on any machine.
  for (let roundDelayMs = 300; ; roundDelayMs *= 3) {
    fillBlock(block, 2);
    let inTime = false;
    const result = await transfer({
      both: { compression: "zstd" },
      sender: { blocks: [block] },
      send: async (sender) => {
        const sending = sender.send({ rounds: 3, roundDelayMs });
        while (sender.statistics().rounds < 1) await Bun.sleep(5);
        for (const page of [3, 4, 5, 511]) fillPage(block.view(page * 4096, 4096), "random", page);
        fillPage(block.view(0, 4096), "zero", 0);
        inTime = sender.statistics().rounds < 3;
        await sending;
      },
    });
    if (!inTime && roundDelayMs < 5000) continue;
    expectEqual(result.blocks, [block]);
    expect(result.sent.rounds).toBe(3);
    // Without a change it has had only one with pages.
    if (inTime) expect(result.received.rounds).toBe(2);
    // Pages written before they were sent the first time need no second time.
    expect(result.sent.pageBytes / 4096).toBeGreaterThanOrEqual(512);
    expect(result.sent.pageBytes / 4096).toBeLessThanOrEqual(512 + 5);
    break;
  }
});

test("multifd/queue sends single pages, ranges and a dirty bitmap, and clears its bits", async () => {
  const block = RamBlock.allocate("pc.ram", 400 * 4096);
  const other = RamBlock.allocate("other", 10 * 4096);
  for (const one of [block, other]) {
    for (let page = 0; page < one.pages; page++)
      fillPage(one.view(page * 4096, 4096), "random", page);
  }
  const dirty = new PageBitmap(block.pages);
  dirty.setRange(200, 203);
  dirty.set(399);
  const result = await transfer({
    sender: { blocks: [block, other] },
    send: async (sender) => {
      sender.queuePage(block, 7);
      sender.queuePage("other", 9);
      sender.queuePage(block, 8);
      await sender.queueRange(block, 100, 103);
      await sender.queueBitmap(block, dirty);
      await sender.sync();
      expect(dirty.count()).toBe(0);
      for (const [from, first, end] of [
        [block, -1, 2],
        [block, 5, 5],
        [block, 399, 401],
        [block, 0.5, 2],
        [block, 1, 2.5],
        [block, NaN, 2],
        ["nobody", 0, 1],
      ] as const) {
        const rejection = await sender.queueRange(from, first, end).catch((e: unknown) => e);
        expect(rejection).toBeInstanceOf(RangeError);
      }
      for (const page of [-1, 400, 0.5, NaN]) {
        expect(() => sender.queuePage(block, page)).toThrow(RangeError);
      }
      await sender.queueRange(block, 200, 201);
    },
  });
  const received = result.blocks[0]!;
  const arrived = Array.from({ length: 400 }, (_, page) => page).filter((page) =>
    received.view(page * 4096, 4096).some((byte) => byte !== 0),
  );
  expect(arrived).toEqual([7, 8, 100, 101, 102, 200, 201, 202, 399]);
  expect(result.blocks[1]!.view(9 * 4096, 4096)).toEqual(other.view(9 * 4096, 4096));
  expect(result.sent).toMatchObject({ normalPages: 11, zeroPages: 0 });
});

test("multifd/verify compares the digests of all blocks", async () => {
  const blocks = oddBlocks();
  const result = await transfer({ sender: { blocks, verify: true } });
  expectEqual(result.blocks, blocks);
});

test("multifd/verify tells both sides when the memory is not what was sent", async () => {
  const blocks = oddBlocks();
  const failures: unknown[] = [];
  await transfer({
    sender: { blocks, verify: true },
    send: async (sender, receiver) => {
      await sender.send();
      // Changed behind the sender's back: no round has this byte, the digest has.
      blocks[2]!.view(5 * 4096, 4096)[77]! ^= 1;
      const ends = await Promise.allSettled([sender.complete(), receiver.complete()]);
      failures.push(...ends.map((end) => end.status === "rejected" && (end.reason as unknown)));
    },
  }).catch(() => {});
  const [sending, receiving] = failures;
  expect(receiving).toBeInstanceOf(DigestError);
  expect(receiving).toMatchObject({ code: "ERR_MULTIFD_DIGEST", side: "destination" });
  expect((receiving as Error).message).toContain("0000:00:02.0/vga.vram");
  expect(sending).toMatchObject({ code: "ERR_MULTIFD_PEER", side: "source" });
});

test("multifd/max-bandwidth may make a transfer longer than every limit on silence", async () => {
  const block = RamBlock.allocate("pc.ram", 2048 * 4096);
  for (let page = 0; page < block.pages; page++)
    fillPage(block.view(page * 4096, 4096), "random", page);
  // 8 s, in which channels get no new job and nothing is said on the main connection.
  const limits = { idleMs: 2000, stallMs: 2000 };
  const result = await transfer({
    sender: { blocks: [block], maxBandwidth: 1_048_576, timeouts: limits },
    receiver: { timeouts: limits },
  });
  expectEqual(result.blocks, [block]);
}, 60_000);

test("multifd/finalize runs before the sender hears of success", async () => {
  const blocks = oddBlocks();
  const order: string[] = [];
  await transfer({
    sender: { blocks },
    receiver: {
      finalize: async (received) => {
        await Bun.sleep(50);
        order.push(`finalized ${received.length}`);
      },
    },
    send: async (sender) => {
      await sender.send();
      await sender.complete();
      order.push("sender told");
    },
  }).catch((error: unknown) => order.push(String(error)));
  expect(order.slice(0, 2)).toEqual(["finalized 3", "sender told"]);
});

test("multifd/finalize that fails fails both sides with its words", async () => {
  const blocks = oddBlocks();
  let senderError: unknown;
  const error = await rejectionOf(
    transfer({
      sender: { blocks },
      receiver: { finalize: () => Promise.reject(new Error("Cannot write image: ENOSPC")) },
      send: async (sender, receiver) => {
        await sender.send();
        senderError = await sender.complete().catch((reason: unknown) => reason);
        await receiver.complete();
      },
    }),
  );
  expect(error.message).toBe("Cannot write image: ENOSPC");
  expect(senderError).toMatchObject({ code: "ERR_MULTIFD_PEER" });
});

test("multifd/no-return-path completes without a word from the receiver", async () => {
  const blocks = oddBlocks();
  const result = await transfer({ sender: { blocks, returnPath: false } });
  expectEqual(result.blocks, blocks);
});

test("connect() and listen() reject options that cannot work before they start anything", async () => {
  const { connect, listen } = await import("../mod.ts");
  const block = RamBlock.allocate("pc.ram", 4096);
  const large = RamBlock.allocate("large", 8192, { pageSize: 8192 });
  for (const wrong of [
    { blocks: [] },
    { blocks: [block, block] },
    { blocks: [block, large] },
    { channels: 0 },
    { channels: 256 },
    { channels: 1.5 },
    { compression: "lzma" as "zlib" },
    { compression: { method: "zlib", level: 10 } as const },
    { uuid: "no uuid" },
    { endpoint: "nowhere" },
    { timeouts: { connectMs: 0 } },
    { timeouts: { stallMs: NaN } },
    { maxBandwidth: -1 },
    { zeroPageDetection: "maybe" as "none" },
    { syncMode: "never" as "round" },
  ]) {
    const options = { endpoint: "127.0.0.1:1", blocks: [block], ...wrong };
    const rejection = await connect(options).catch((error: unknown) => error);
    expect([RangeError, TypeError]).toContain(
      (rejection as Error).constructor as typeof RangeError,
    );
  }
  for (const wrong of [{ blocks: [] }, { pageSize: 1000 }, { ramBytesMax: 0 }, { channels: -1 }]) {
    const rejection = await listen({ endpoint: "127.0.0.1:0", ...wrong }).catch((e: unknown) => e);
    expect([RangeError, TypeError]).toContain(
      (rejection as Error).constructor as typeof RangeError,
    );
  }
});
