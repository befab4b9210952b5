import { expect, test } from "bun:test";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import {
  connect,
  listen,
  type MultifdError,
  PageBitmap,
  RamBlock,
  trackDirtyPages,
} from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { testTimeouts } from "./kit/limits.ts";
import { runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { bun } from "./setup/command.ts";

const rounds = 4;
const disposed = {
  code: "ERR_MULTIFD_DISPOSED",
  message: "Cannot use RAM block pc.ram: it has been disposed",
};

for (const work of [
  "sent",
  "sent in rounds",
  "sent from a recording",
  "received",
  "kept in step",
  "tracked",
  "saved",
  "recorded",
  "written to a snapshot",
]) {
  test(`a mapped block that is disposed while it is ${work} stays until that is done`, async () => {
    const command = [bun, "test/fixtures/disposed_blocks.ts", work, "7", `${rounds}`];
    const { status, killed, stdout, stderr } = await runCommand(command);
    expect({ status, killed, stderr }).toEqual({ status: 0, killed: false, stderr: "" });
    expect(JSON.parse(stdout)).toEqual({ right: rounds, errors: [], mapped: false });
  });
}

function mapped(folder: TemporaryFolder): RamBlock {
  const path = folder.file("block.ram");
  writeFileSync(path, "multifd");
  truncateSync(path, 8192);
  return RamBlock.map("pc.ram", path, { writable: true });
}

const isMapped = (folder: TemporaryFolder): boolean =>
  readFileSync("/proc/self/maps", "utf8").includes(folder.path);

test("RamBlock.hold() keeps mapped memory until the last object over it is disposed", () => {
  using folder = new TemporaryFolder();
  const block = mapped(folder);
  const held = block.hold();
  const second = held.hold();
  block[Symbol.dispose]();
  block[Symbol.dispose]();
  held[Symbol.dispose]();
  expect(isMapped(folder)).toBe(true);
  expect(new TextDecoder().decode(second.view(0, 7))).toBe("multifd");
  second[Symbol.dispose]();
  second[Symbol.dispose]();
  expect(isMapped(folder)).toBe(false);
});

test("a disposed block refuses every use", async () => {
  using folder = new TemporaryFolder();
  const allocated = RamBlock.allocate("pc.ram", 8192);
  for (const block of [mapped(folder), allocated]) {
    block[Symbol.dispose]();
    for (const use of [
      () => block.hold(),
      () => block.view(0, 4096),
      () => block.addressAt(0),
      () => block.segments,
      () => block.segmentBytes,
      () => block.share(),
      () => block.prefault(),
      () => [...block.views()],
    ]) {
      expect(use).toThrow(expect.objectContaining(disposed));
    }
    expect(block).toMatchObject({ idstr: "pc.ram", bytes: 8192, pages: 2, pageSize: 4096 });
    const endpoint = "127.0.0.1:0";
    for (const work of [
      block.toFile(folder.file("saved.ram")),
      trackDirtyPages(block),
      connect({ endpoint, blocks: [block] }),
      listen({ endpoint, blocks: [block] }),
    ]) {
      expect(await rejectionOf(work)).toMatchObject(disposed);
    }
  }
});

test("a session that fails lets go of its blocks", async () => {
  using folder = new TemporaryFolder();
  const block = mapped(folder);
  const endpoint = `${folder.path}/nobody`;
  const refusal = await rejectionOf(
    connect({ endpoint: `unix:${endpoint}`, blocks: [block], timeouts: testTimeouts }),
  );
  expect(refusal.code).toMatch(/^ERR_MULTIFD_/);
  block[Symbol.dispose]();
  expect(isMapped(folder)).toBe(false);
});

test("a tracker that is disposed while it fetches ends the fetch and lets go of its block", async () => {
  using folder = new TemporaryFolder();
  const block = mapped(folder);
  const tracker = await trackDirtyPages(block, { method: "compare" });
  const fetch = tracker.fetch(new PageBitmap(block.pages)).then(
    () => "done",
    (error: unknown) => (error as MultifdError).code,
  );
  tracker[Symbol.dispose]();
  expect(["done", "ERR_MULTIFD_DISPOSED"]).toContain(await fetch);
  expect(await rejectionOf(tracker.fetch(new PageBitmap(block.pages)))).toMatchObject({
    code: "ERR_MULTIFD_DISPOSED",
  });
  expect(() => tracker.fetchBlocking(new PageBitmap(block.pages))).toThrow(
    expect.objectContaining({ code: "ERR_MULTIFD_DISPOSED" }),
  );
  block[Symbol.dispose]();
  expect(isMapped(folder)).toBe(false);
});
