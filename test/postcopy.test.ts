/** What a source whose memory follows the guest plans, keeps, writes and reads; all without a QEMU. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import {
  OrderRecorder,
  orderedPages,
  readPageOrder,
  writePageOrder,
} from "../lib/qemu/page_order.ts";
import { PagePlan } from "../lib/qemu/page_plan.ts";
import { PostcopyReplies } from "../lib/wire/postcopy_replies.ts";
import {
  writeAdvise,
  writeBitmapRequest,
  writeDiscard,
  writePackage,
} from "../lib/wire/postcopy_stream.ts";
import { BandwidthLimit, ChannelError, MultifdError, PageBitmap, StreamError } from "../mod.ts";
import { BandwidthShare } from "../lib/sync/bandwidth_limit.ts";
import { hex, readerOf, written } from "./kit/byte_ends.ts";
import { rejectionOf, thrownBy } from "./kit/errors.ts";
import { randomNumbers } from "./kit/page_content.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const PAGE = 4096;

function blockOf(idstr: string, pages: number, present: readonly [number, number][]) {
  const bitmap = new PageBitmap(pages);
  for (const [start, end] of present) bitmap.setRange(start, end);
  const bytes = pages * PAGE;
  return { idstr, bytes, pages, pageSize: PAGE, pagesOffset: 0, present: bitmap };
}

const BLOCKS = [
  blockOf("pc.ram", 1000, [
    [0, 10],
    [100, 400],
    [999, 1000],
  ]),
  blockOf("vga.vram", 64, [[8, 16]]),
];
const HELD = 10 + 300 + 1 + 8;

/** All that a plan gives from now on, as text. */
function rest(plan: PagePlan, pagesMax = 256): string[] {
  const runs: string[] = [];
  while (plan.next(pagesMax)) runs.push(`${plan.block}:${plan.start}-${plan.end}`);
  return runs;
}

test("PagePlan sends what follows a fault, then the recorded order, then all others, each page once", () => {
  const order = Uint32Array.of(1, 8, 10, 0, 999, 1000);
  const plan = new PagePlan(BLOCKS, [1, 1], order);
  expect(plan.left).toBe(HELD);
  expect(() => plan.requireNone()).toThrow(`${HELD} pages were not sent`);
  expect([plan.claim(0, 200), plan.claim(0, 200)]).toEqual([true, false]);
  expect([plan.claim(0, 50), plan.left]).toEqual([true, HELD - 1]); // a zero page is in no count
  plan.follow(0, 200);
  expect(plan.next(16)).toBe(true);
  expect([plan.start, plan.end]).toEqual([201, 217]);
  expect(rest(plan)).toEqual([
    "0:217-265", // 64 pages behind the fault
    "1:8-10",
    "0:999-1000",
    "0:0-10",
    "0:100-200",
    "0:265-400",
    "1:10-16",
  ]);
  expect(plan.left).toBe(0);
  plan.requireNone();
});

test("PagePlan loses no page and sends none twice, whatever is asked for, given back and resumed", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = randomNumbers(seed);
    const unit = [1, 2, 8][seed % 3]!;
    const plan = new PagePlan(BLOCKS, [unit, unit], Uint32Array.of(0, 150, 350, 1, 9, 12));
    let sent = BLOCKS.map(({ pages }) => new PageBitmap(Math.ceil(pages / unit)));
    const send = (block: number, page: number): void => {
      expect(sent[block]!.set(page)).toBe(true);
    };
    for (let step = 0; plan.left > 0; step++) {
      if (random() % 3 === 0) {
        const block = random() % 2;
        const page = random() % Math.floor(BLOCKS[block]!.pages / unit);
        if (plan.claim(block, page)) send(block, page);
        plan.follow(block, page);
      } else if (plan.next(1 + (random() % 20))) {
        const stop = plan.start + (random() % (plan.end - plan.start + 1));
        if (stop < plan.end) plan.giveBack(stop);
        for (let page = plan.start; page < stop; page++) send(plan.block, page);
      }
      if (step === 20) {
        // The connection is gone, and only some of what was sent has arrived.
        const received = BLOCKS.map(({ pages }) => new PageBitmap(pages));
        sent = sent.map((each, block) => {
          const arrived = new PageBitmap(each.pages);
          for (let page = 0; page < each.pages; page++) {
            if (!each.has(page) || random() % 2 === 0) continue;
            arrived.set(page);
            received[block]!.setRange(page * unit, (page + 1) * unit);
          }
          return arrived;
        });
        for (const [block, bits] of received.entries()) plan.resume(block, bits, unit);
      }
    }
    plan.requireNone();
    expect(plan.next(1)).toBe(false);
    for (const [block, { present }] of BLOCKS.entries()) {
      for (const { start, end } of present.runs()) {
        for (let page = start; page < end; page++) {
          expect(sent[block]!.has(Math.floor(page / unit))).toBe(true);
        }
      }
    }
  }
});

test("an order of pages is kept with neighbours merged, and fits the guest that it is of only", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.order");
  const recorder = new OrderRecorder(BLOCKS, Uint32Array.of(1, 8, 10));
  for (const page of [300, 301, 302, 7, 303, 301]) recorder.add(0, page, page + 1);
  await writePageOrder(path, { blocks: BLOCKS, runs: recorder.runs });
  const read = readPageOrder(path, BLOCKS);
  expect([...read.runs]).toEqual([1, 8, 10, 0, 300, 303, 0, 7, 8, 0, 303, 304]);
  expect(orderedPages(read)).toBe(7);
  // Blocks may lie in another order, but must be the same.
  expect([...readPageOrder(path, BLOCKS.toReversed()).runs.subarray(0, 3)]).toEqual([0, 8, 10]);
  for (const others of [[BLOCKS[0]!], [BLOCKS[0]!, blockOf("vga.vram", 65, [])]]) {
    const { code, message } = thrownBy(() => readPageOrder(path, others));
    expect(code).toBe("ERR_MULTIFD_ORDER");
    expect(message).toContain("it is of another guest");
  }
  expect(await rejectionOf(writePageOrder(folder.file("no/way"), read))).toBeInstanceOf(
    MultifdError,
  );
});

test("an order that names a page twice is refused, and none is recorded", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.order");
  const recorder = new OrderRecorder(BLOCKS, Uint32Array.of(0, 5, 10));
  recorder.add(0, 0, 20);
  recorder.add(0, 7, 21);
  expect([...recorder.runs]).toEqual([0, 5, 10, 0, 0, 5, 0, 10, 21]);
  await writePageOrder(path, { blocks: BLOCKS, runs: recorder.runs });
  expect(orderedPages(readPageOrder(path, BLOCKS))).toBe(21);
  const twice = [BLOCKS[0]!, BLOCKS[0]!];
  for (const [blocks, runs] of [
    [BLOCKS, [0, 5, 10, 1, 0, 64, 0, 9, 11]],
    [twice, [0, 5, 10, 1, 5, 10]], // a block that is there twice is one
  ] as const) {
    await writePageOrder(path, { blocks, runs: Uint32Array.from(runs) });
    const { code, message } = thrownBy(() => readPageOrder(path, BLOCKS));
    expect(code).toBe("ERR_MULTIFD_ORDER");
    expect(message).toContain("twice");
  }
});

test("PagePlan looks for pages of a long run of the order where it found the last, and behind what was given back", () => {
  const plan = new PagePlan(BLOCKS, [1, 1], Uint32Array.of(0, 100, 400));
  expect([plan.nextOrdered(64), plan.start, plan.end]).toEqual([true, 100, 164]);
  plan.giveBack(130);
  expect([plan.nextOrdered(64), plan.start, plan.end]).toEqual([true, 130, 194]);
  plan.resume(0, new PageBitmap(1000), 1);
  expect([plan.nextOrdered(64), plan.start, plan.end]).toEqual([true, 100, 164]);
});

test("a damaged order of pages is refused, whatever is damaged", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.order");
  await writePageOrder(path, { blocks: BLOCKS, runs: Uint32Array.of(0, 1, 2, 1, 5, 64) });
  const whole = readFileSync(path);
  for (let at = 0; at < whole.byteLength; at++) {
    const damaged = Uint8Array.from(whole);
    damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
    writeFileSync(path, damaged);
    expect(thrownBy(() => readPageOrder(path, BLOCKS)).code).toBe("ERR_MULTIFD_ORDER");
    writeFileSync(path, whole.subarray(0, at));
    expect(thrownBy(() => readPageOrder(path, BLOCKS)).code).toBe("ERR_MULTIFD_ORDER");
  }
  // With a checksum that fits, the numbers themselves are looked at.
  for (const [at, value] of [
    [12, 0xffff_ffff],
    [16, 0xffff_ffff],
    [whole.byteLength - 8, 65],
    [whole.byteLength - 12, 64],
    [whole.byteLength - 16, 2],
  ] as const) {
    const forged = new DataView(new ArrayBuffer(whole.byteLength));
    new Uint8Array(forged.buffer).set(whole);
    forged.setUint32(at, value);
    const end = whole.byteLength - 4;
    forged.setUint32(end, Bun.hash.crc32(new Uint8Array(forged.buffer, 0, end)));
    writeFileSync(path, new Uint8Array(forged.buffer));
    expect(thrownBy(() => readPageOrder(path, BLOCKS)).code).toBe("ERR_MULTIFD_ORDER");
  }
});

test("the commands of a source are the documented ones", () => {
  expect(written((out) => writeAdvise(out, [0x1000, 0x20_0000], 0x1000))).toEqual(
    hex("08 0003 0010  0000000000201000 0000000000001000"),
  );
  expect(written((out) => writeDiscard(out, { idstr: "ab", bytes: 0x3000 }))).toEqual(
    hex("08 0006 0015  00 02 6162 00  0000000000000000 0000000000003000"),
  );
  expect(written((out) => writePackage(out, hex("04 ff")))).toEqual(
    hex(
      "08 0007 0004 0000001e  08 0004 0000  04ff  08 0002 0004 00000003  08 0002 0004 00000042  08 0005 0000",
    ),
  );
  expect(written((out) => writeBitmapRequest(out, "ab"))).toEqual(hex("08 000a 0003 02 6162"));
});

/** Reads all messages and says what they were. */
function heard(bytes: Uint8Array): string[] {
  const said: string[] = [];
  const replies = new PostcopyReplies(readerOf(bytes), ["pc.ram", "ab"], {
    pages: (...request) => said.push(`pages ${request.join(" ")}`),
    pong: (value) => said.push(`pong ${value}`),
    receivedBitmap: (block) => said.push(`bitmap ${block}`),
    resumed: () => said.push("resumed"),
    shut: (value) => said.push(`shut ${value}`),
  });
  try {
    while (replies.read(0));
  } catch (error) {
    if (!(error instanceof ChannelError)) throw error;
  }
  return said;
}

test("PostcopyReplies reads what a destination asks for, with the block of the last request", () => {
  expect(
    heard(
      hex(
        "0003 000f 0000000000001000 00001000 02 6162  0004 000c 0000000000002000 00002000" +
          "0002 0004 00000042  0005 0003 02 6162  0006 0004 00000001  0001 0004 00000000",
      ),
    ),
  ).toEqual(["pages 1 4096 4096", "pages 1 8192 8192", "pong 66", "bitmap 1", "resumed", "shut 0"]);
});

test("PostcopyReplies refuses what is no message, and pages of no block", () => {
  for (const bytes of [
    "0004 000c 0000000000002000 00002000", // in no block yet
    "0003 000f 0000000000001000 00001000 02 6163", // a block that is none
    "0003 0010 0000000000001000 00001000 02 6162 00", // another length than its name
    "0004 000d 0000000000002000 00002000 00",
    "0006 0004 00000000",
    "0007 0000",
    "0099 0000",
    "0003 ffff",
  ]) {
    expect(() => heard(hex(bytes))).toThrow(StreamError);
  }
});

test("BandwidthShare.reserve() tells how long bytes must wait, and forgets that when the rate changes", () => {
  const limit = new BandwidthLimit(1_000_000);
  const share = new BandwidthShare(limit.buffer);
  share.reserve(100_000);
  expect(share.leftMs).toBeGreaterThan(70); // 20 ms may be caught up
  expect(share.leftMs).toBeLessThanOrEqual(100);
  limit.bytesPerSecond = 0;
  expect(share.leftMs).toBe(0);
  share.reserve(1e9);
  expect(share.leftMs).toBe(0);
});
