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
