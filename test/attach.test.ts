/** Blocks whose pages come in when they are touched. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, statSync } from "node:fs";
import {
  capabilities,
  compressSnapshot,
  createSnapshot,
  openSnapshot,
  RamBlock,
  writeRecording,
} from "../mod.ts";
import { PageBitmap } from "../lib/memory/page_bitmap.ts";
import { firstPagesOf } from "../lib/paging/first_pages.ts";
import { PageFiller } from "../lib/paging/page_filler.ts";
import { PagePlacer } from "../lib/paging/page_placer.ts";
import { newPageRange, PageRange } from "../lib/paging/page_range.ts";
import { digestOf } from "./kit/attached_content.ts";
import { LimitMs } from "./kit/limits.ts";
import { fillBlock } from "./kit/page_content.ts";
import { fixtureResult, runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun } from "./setup/command.ts";

const MIB = 1 << 20;
const { pageFaults } = capabilities();
const refused = pageFaults.available ? undefined : pageFaults.reason;
const attachTest = test.skipIf(refused !== undefined);
const gcc = Bun.which("gcc");
const filterTest = test.skipIf(refused !== undefined || gcc === null);

const folder = new TemporaryFolder();
const paths = ["snap", "zst", "rec"].map((kind) => folder.file(`guest.${kind}`));
let digests: string[] = [];

beforeAll(async () => {
  const blocks = [
    RamBlock.allocate("pc.ram", 12 * MIB + 12 * 4096),
    RamBlock.allocate("empty", MIB),
    RamBlock.allocate("vga.vram", 2 * MIB),
  ];
  fillBlock(blocks[0]!, 1);
  fillBlock(blocks[2]!, 2);
  blocks[0]!.view(0, 4096).fill(9);
  const last = blocks[0]!.bytes - 4096;
  blocks[0]!.view(last, 4096).fill(8);
  digests = blocks.map((block) => digestOf(block));
  const [plain = "", compressed = "", recorded = ""] = paths;
  await using writer = await createSnapshot({ path: plain, blocks, sync: false });
  await writer.write();
  await writer.complete();
  using file = await openSnapshot(plain);
  await compressSnapshot(file, compressed, { level: 1, frameBytes: 65_536 });
  await expect(compressSnapshot(file, compressed, { frameBytes: 5000 })).rejects.toThrow(
    "Cannot compress in frames of 5000 bytes: must be a multiple of 4096 up to 16777216",
  );
  await writeRecording(recorded, {
    blocks,
    compression: "none",
    statistics: (await file.load()).statistics,
    state: {
      machine: "none",
      uuid: new Uint8Array(16),
      validateUuid: false,
      ramSectionId: 1,
      early: new Uint8Array(),
      switchoverStart: false,
      devices: Uint8Array.of(0),
    },
  });
});

afterAll(() => folder[Symbol.dispose]());

for (const [kind, index] of [
  ["a snapshot", 0],
  ["a compressed snapshot", 1],
  ["a recording", 2],
] as const) {
  for (const channels of [0, 1, 3]) {
    attachTest(
      `attach: every page of ${kind} is right when it is touched, with ${channels} threads that fill`,
      async () => {
        const result = await fixtureResult("attach", ["touch", paths[index]!, String(channels)]);
        expect(result).toMatchObject({ digests, again: digests, pagesLeft: 0, isResident: true });
        expect((result as { faults: number }).faults).toBeGreaterThan(0);
      },
    );
  }

  attachTest(`attach: four threads touch ${kind} at once, and native code does`, async () => {
    const result = await fixtureResult("attach", ["threads", paths[index]!, "1"]);
    const same = { digests, sum: true };
    expect(result).toEqual({ results: [same, same, same, same], equal: [true, true, true] });
  });

  attachTest(
    `attach: what is written to blocks of ${kind} stays there, and the file as it was`,
    async () => {
      const before = await Bun.file(paths[index]!).bytes();
      const result = (await fixtureResult("attach", ["write", paths[index]!, "1"])) as {
        kept: number;
        of: number;
      };
      expect(result).toMatchObject({ kept: result.of, untouched: digests[0], writable: false });
      expect(Buffer.compare(before, await Bun.file(paths[index]!).bytes())).toBe(0);
    },
  );

  attachTest(
    `attach: where ${kind} is cut off, the error is told, and touching what is gone ends the process`,
    async () => {
      const copy = folder.file(`cut.${paths[index]!.split(".").at(-1)}`);
      copyFileSync(paths[index]!, copy);
      const keep = index === 1 ? 200_000 : statSync(copy).size - 14 * MIB;
      const { status, killed, stdout, stderr } = await runCommand(
        [bun, "test/fixtures/attach.ts", "cut", copy, String(keep)],
        { timeoutMs: LimitMs.program },
      );
      expect(killed).toBeFalse();
      expect(status).not.toBe(0);
      const lines = stdout.trimEnd().split("\n");
      expect(lines).toHaveLength(1); // it never came to the end: nobody has read zeros
      const code = index === 2 ? "ERR_MULTIFD_IMAGE" : "ERR_MULTIFD_STREAM_TRUNCATED";
      expect(JSON.parse(lines[0]!)).toEqual({ first: 9, code });
      expect(stderr).toContain("of RAM block pc.ram is touched and cannot be had");
    },
  );
}

attachTest("attach: every page is right where an order says which come first", async () => {
  expect(await fixtureResult("attach", ["order", paths[0]!, "2"])).toEqual({ digests });
});

attachTest("attach: nothing is left of blocks that come and go at any moment", async () => {
  const result = (await fixtureResult("attach", ["leak", paths[0]!])) as { more: number };
  expect(result.more).toBeLessThan(20);
});

attachTest(
  "attach: attached blocks are sent and saved as they are in the file, none of their pages there",
  async () => {
    const result = await fixtureResult("attach", ["send", paths[0]!]);
    const four = [digests, digests, digests, digests];
    expect(result).toMatchObject({
      digests: four,
      wanted: digests,
      image: digests[0],
      notices: [],
    });
  },
);

test("attach: the pages of an order come in first, in that order, and then all others", () => {
  const range = (idstr: string, block: number, pages: number): PageRange => {
    const present = new PageBitmap(pages);
    present.setRange(0, pages);
    const shape = { unitBytes: 4096, pageSize: 4096, blockOffset: 0, blockPages: pages };
    const bytes = pages * 4096;
    const place = { idstr, block, bytes, address: 4096, present: present.buffer };
    return new PageRange(newPageRange({ ...shape, ...place }));
  };
  const read: number[][] = [];
  const memory = {
    copy: (_: number, __: number, bytes: number) => bytes,
    zero: () => 0,
    wake: () => 0,
  };
  const placer = new PagePlacer(
    memory,
    {
      read: (_, bytes, block, offset) => void read.push([block, offset / 4096, bytes / 4096]),
      [Symbol.dispose]() {},
    },
    4096,
  );
  const blocks = ["a", "b"].map((idstr) => ({ idstr, bytes: 600 * 4096, pageSize: 4096 }));
  const ordered = ["gone", "b", "a"].map((idstr) => ({ idstr, pages: 600, pageSize: 4096 }));
  // In pieces of 256 pages; what is not attached is left out.
  const runs = Uint32Array.of(1, 590, 600, 0, 0, 9, 2, 100, 500, 1, 3, 4);
  const first = firstPagesOf({ blocks: ordered, runs }, blocks, "Cannot attach");
  const ranges = blocks.map(({ idstr }, index) => range(idstr, index, 600));
  let placed = 0;
  const filler = new PageFiller(new SharedArrayBuffer(4), ranges, first, placer, (_, units) => {
    placed += units;
  });
  while (filler.step());
  expect(read.slice(0, 4)).toEqual([
    [1, 590, 10],
    [0, 100, 256],
    [0, 356, 144],
    [1, 3, 1],
  ]);
  expect(read.slice(4)).toEqual([
    [0, 0, 100],
    [0, 500, 12],
    [0, 512, 88],
    [1, 0, 3],
    [1, 4, 252],
    [1, 256, 256],
    [1, 512, 78],
  ]);
  expect(placed).toBe(1200);
  const wrong = { blocks: ordered, runs: Uint32Array.of(1, 590, 601) };
  expect(() => firstPagesOf(wrong, blocks, "Cannot attach")).toThrow(
    "names pages 590 to 601 of 600",
  );
  const twice = { blocks: ordered, runs: Uint32Array.of(1, 0, 400, 1, 100, 400) };
  expect(() => firstPagesOf(twice, blocks, "Cannot attach")).toThrow("more than the 600 pages");
  const other = { blocks: [{ idstr: "a", pages: 7, pageSize: 4096 }], runs: new Uint32Array() };
  expect(() => firstPagesOf(other, blocks, "Cannot attach")).toThrow("the order is of 7 pages");
});

async function filtered(mode: "user" | "none", way: string): Promise<unknown> {
  const program = folder.file("refuse");
  const built = await runCommand(["gcc", "-O1", "-o", program, "test/fixtures/refuse_faults.c"]);
  expect(built).toMatchObject({ status: 0 });
  const { stdout, stderr } = await runCommand([
    program,
    mode,
    bun,
    "test/fixtures/attach.ts",
    way,
    paths[0]!,
  ]);
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) || JSON.stringify(stderr));
}

filterTest(
  "attach: without privileges system calls fail on absent pages, and still blocks are sent and saved",
  async () => {
    const result = await filtered("user", "send");
    const four = [digests, digests, digests, digests];
    expect(result).toMatchObject({
      systemCall: "EFAULT",
      digests: four,
      wanted: digests,
      image: digests[0],
    });
  },
);

filterTest(
  "attach: where the kernel refuses, blocks are loaded, and the notice tells why",
  async () => {
    const result = await filtered("none", "notice");
    expect(result).toMatchObject({ digests, isResident: true });
    expect((result as { notices: string[] }).notices.join()).toContain("EPERM: refused even for");
  },
);

filterTest(
  "attach: capabilities() says what the kernel lets a process have, and why not more",
  async () => {
    expect(await filtered("user", "support")).toEqual({
      available: true,
      systemCalls: false,
      reason:
        "EPERM: needs CAP_SYS_PTRACE, vm.unprivileged_userfaultfd = 1 or access to /dev/userfaultfd",
    });
    expect(await filtered("none", "support")).toMatchObject({
      available: false,
      systemCalls: false,
    });
  },
);
