/**
 * Mapped-ram files of QEMU 11.1: read here, written here and restored there, and with blocks that
 * are left out as shared memory, which older ones cannot write.
 *
 * @module
 */
import { expect } from "bun:test";
import { analyze, compressSnapshot, openSnapshot, RamBlock, verifySnapshot } from "../../mod.ts";
import { ExampleProgram } from "../kit/example_program.ts";
import { GuestTest } from "./guest_migration.ts";
import { Qemu } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import { LimitMs } from "../kit/limits.ts";
import { saveSnapshot } from "../kit/snapshots.ts";

const CHANNELS = 3;
/** Below it some addresses lead to ROMs and not to RAM. */
const ROM_END = 1 << 20;

async function saveToFile(source: Qemu, path: string, ignoreShared: boolean): Promise<void> {
  await source.setCapabilities({
    multifd: true,
    "return-path": false,
    "mapped-ram": true,
    "x-ignore-shared": ignoreShared,
  });
  await source.migrate(`file:${path}`);
  await source.waitMigration(LimitMs.busyMigration);
}

for (const machine of ["pc-q35-11.0", "pc-i440fx-11.1"]) {
  qemuTest(
    `mapped-ram files of QEMU 11.1 with ${machine} go both ways`,
    async () => {
      await using guest = await GuestTest.create({ machine });
      const side = { version: "11.1", channels: CHANNELS, compression: "none" } as const;
      await using source = await guest.startSource(side);
      const original = guest.path("original.snap");
      await saveToFile(source, original, false);
      using file = await openSnapshot(original);
      expect(file.index.configuration.machine).toBe(machine);
      const { blocks } = await file.load({ channels: 2 });
      const ram = blocks.find(({ idstr }) => idstr === "pc.ram")!;
      const loaded = Buffer.concat([...ram.views()]).subarray(ROM_END);
      const memory = (await guest.memoryOf(source)).subarray(ROM_END);
      expect(Buffer.compare(loaded, memory)).toBe(0);
      const { presentPages } = await verifySnapshot(file);
      const analysis = await analyze(original);
      expect(analysis.kind).toBe("mapped-ram");
      expect(analysis.blocks.reduce((sum, { normalPages }) => sum + normalPages, 0)).toBe(
        presentPages,
      );

      const path = guest.path("copy.snap");
      const guestState = file.guestState();
      await saveSnapshot({ path, blocks, guestState, channels: 2 });
      await using target = await guest.startTarget(side);
      await target.setCapabilities({ "return-path": false, "mapped-ram": true });
      await target.migrateIncoming(`file:${path}`);
      await target.waitMigration(LimitMs.busyMigration);
      await guest.expectGoesOn(source, target);
    },
    undefined,
    ["11.1"],
  );
}

qemuTest(
  "a block that x-ignore-shared left out of a mapped-ram file is named, and the file never taken for whole",
  async () => {
    await using guest = await GuestTest.create({ machine: "pc-q35-11.1" });
    const ramFile = guest.path("ram");
    await using source = await Qemu.start({
      ...guest.machine,
      name: "source",
      version: "11.1",
      ramFile,
    });
    await source.waitSerial(/00000001\n/, LimitMs.busyMigration);
    const path = guest.path("shared.snap");
    await saveToFile(source, path, true);

    const analysis = await analyze(path);
    expect(analysis).toMatchObject({ kind: "mapped-ram", hasDescription: true });
    const pages = guest.ramBytes / 4096;
    expect(analysis.blocks.find(({ idstr }) => idstr === "pc.ram")).toMatchObject({
      pages,
      normalPages: 0,
      zeroPages: 0,
      absentPages: pages,
    });
    expect(analysis.blocks.find(({ idstr }) => idstr === "pc.bios")?.absentPages).toBe(0);
    expect(analysis.devices.length).toBeGreaterThan(20);
    expect(analysis.devices.filter(({ described }) => !described)).toEqual([]);

    using file = await openSnapshot(path);
    expect(file.index.sharedBlocks).toEqual([{ idstr: "pc.ram", bytes: guest.ramBytes }]);
    expect(() => file.block("pc.ram")).toThrow(/leaves shared memory out/);
    await expect(file.load()).rejects.toThrow(/shared memory is not in it \(pc\.ram\)/);
    const bios = file.block("pc.bios");
    const blocks = [RamBlock.allocate("pc.bios", bios.bytes)];
    expect((await file.load({ blocks })).blocks).toHaveLength(1);
    expect(await verifySnapshot(file)).toMatchObject({ sharedBlocks: ["pc.ram"] });
    const compressed = guest.path("shared.zst");
    await compressSnapshot(file, compressed);
    using small = await openSnapshot(compressed);
    expect(small.index.sharedBlocks).toEqual(file.index.sharedBlocks);

    const named = /pc\.ram: 48(\.0+)? MiB of shared memory that was left out/;
    for (const command of ["info", "verify"]) {
      const shown = await new ExampleProgram("snapshot", [command, path]).end();
      expect(shown).toMatchObject({ status: 0, stderr: "" });
      expect(shown.stdout).toMatch(named);
    }
    const copy = guest.path("copy.snap");
    const copied = ["convert", path, "--to", "mapped-ram", "--output", copy];
    expect((await new ExampleProgram("snapshot", copied).end()).stdout).toMatch(named);
    const differing = await new ExampleProgram("snapshot", ["diff", path, copy]).end();
    expect(differing.stdout).toContain("pc.ram is not in both");
    const recorded = ["convert", path, "--to", "recording", "--output", guest.path("vm.rec")];
    const refused = await new ExampleProgram("snapshot", recorded).end();
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain("pc.ram");
  },
  undefined,
  ["11.1"],
);
