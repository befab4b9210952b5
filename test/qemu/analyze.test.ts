import { expect, test } from "bun:test";
import { analyze, MultifdError, record, type Analysis, type DeviceField } from "../../mod.ts";
import { ExampleProgram } from "../kit/example_program.ts";
import { GuestTest, uriOf } from "./guest_migration.ts";
import { qemuTest } from "./qemu_case.ts";
import { Qemu } from "./qemu.ts";
import { LimitMs } from "../kit/limits.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const ZERO_PAGES_MIN = 3000; // below 16 MiB the tiny guest touches next to nothing

/** Migrates to a file, without multifd unless capabilities say so. */
async function migrateToFile(
  source: Qemu,
  path: string,
  capabilities: Readonly<Record<string, boolean>>,
  offset?: number,
): Promise<void> {
  await source.setCapabilities({ multifd: false, "return-path": false, ...capabilities });
  await source.migrate(`file:${path}${offset === undefined ? "" : `,offset=${offset}`}`);
  await source.waitMigration(LimitMs.migration);
}

function pcRam({ blocks }: Analysis) {
  return blocks.find(({ idstr }) => idstr === "pc.ram");
}

/** What must hold for every analysis of a guest. */
function expectWhole(analysis: Analysis): void {
  expect(analysis.hasDescription).toBe(true);
  expect(analysis.devices.length).toBeGreaterThan(20);
  expect(analysis.devices.filter(({ described }) => !described)).toEqual([]);
  const names = analysis.devices.map(({ name }) => name);
  expect(names).toContain("timer");
  expect(names.at(-1)).toBe("globalstate");
  const { sections } = analysis;
  expect(sections.at(-1)?.kind).toBe("description");
  expect(sections.at(-2)?.kind).toBe("end-mark");
  for (const [index, { offset, bytes }] of sections.entries()) {
    const next = sections[index + 1];
    if (next !== undefined) expect(offset + bytes).toBeLessThanOrEqual(next.offset);
  }
}

qemuTest("analyze() reads a plain migration file, every byte of it", async () => {
  await using guest = await GuestTest.create({ machine: "pc", uuid: UUID });
  await using source = await guest.startSource({ channels: 2, compression: "none" });
  const path = guest.path("plain");
  await Bun.write(path, "in front");
  await migrateToFile(source, path, { "validate-uuid": true }, 8);
  const analysis = await analyze(path, { offset: 8 });
  expectWhole(analysis);
  expect(analysis).toMatchObject({ kind: "stream", pageSize: 4096, uuid: UUID });
  expect(analysis.machine).toMatch(/^pc-i440fx-/);
  const ram = pcRam(analysis);
  expect(ram?.normalPages).toBeGreaterThanOrEqual((guest.ramBytes - (16 << 20)) / 4096);
  expect(ram?.zeroPages).toBeGreaterThan(ZERO_PAGES_MIN);
  expect(ram?.absentPages).toBe(0);
  const { ram: counted } = await source.queryMigrate();
  expect(analysis.records).toMatchObject({
    normal: counted?.normalPages,
    zero: counted?.zeroPages,
  });
  // Sections lie end to end, but for the file header and the bytes of section types.
  const covered = analysis.sections.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(covered).toBe(analysis.fileBytes - 8);
});

qemuTest("analyze() reads mapped-ram files and shared RAM that is left out", async () => {
  await using guest = await GuestTest.create();
  await using source = await guest.startSource({ channels: 2, compression: "none" });
  const path = guest.path("mapped");
  await migrateToFile(source, path, { "mapped-ram": true });
  const mapped = await analyze(path);
  expectWhole(mapped);
  expect(mapped).toMatchObject({ kind: "mapped-ram", capabilities: ["mapped-ram"] });
  expect(pcRam(mapped)?.zeroPages).toBeGreaterThan(ZERO_PAGES_MIN);

  await using sharing = await Qemu.start({ ...guest.machine, ramFile: guest.path("ram") });
  await sharing.waitSerial(/00000001\n/, LimitMs.migration);
  await migrateToFile(sharing, guest.path("shared"), { "x-ignore-shared": true });
  const shared = await analyze(guest.path("shared"));
  expectWhole(shared);
  expect(shared.capabilities).toEqual(["x-ignore-shared"]);
  expect(pcRam(shared)).toMatchObject({ normalPages: 0, absentPages: guest.ramBytes / 4096 });
});

qemuTest(
  "analyze() and qemu_analyze.ts read recordings with devices nobody here knows",
  async () => {
    await using guest = await GuestTest.create({
      extraArgs: ["-device", "e1000", "-device", "VGA"],
    });
    await using source = await guest.startSource({ channels: 2, compression: "zstd" });
    const output = guest.path("vm.rec");
    {
      await using recorder = await record({
        endpoint: "127.0.0.1:0",
        channels: 2,
        compression: "zstd",
        output,
      });
      await source.migrate(uriOf(recorder.endpoint));
      await recorder.complete();
    }
    const analysis = await analyze(output);
    expectWhole(analysis);
    expect(analysis.kind).toBe("recording");
    const card = analysis.devices.find(({ name }) => name.endsWith("/e1000"));
    const [parent] = card?.fields ?? [];
    expect(parent?.fields?.find(({ name }) => name === "version_id")?.value).toBe(2);
    const config = parent?.fields?.find(({ type }: DeviceField) => type === "pci config");
    expect(config?.value).toStartWith("86800e10"); // Intel 82540EM

    const text = await new ExampleProgram("qemu_analyze", [output, "--sections"]).end();
    expect(text).toMatchObject({ status: 0, stderr: "" });
    expect(text.stdout).toContain("/e1000");
    const json = await new ExampleProgram("qemu_analyze", [output, "--json"]).end();
    expect(json.result).toMatchObject({ ok: true, machine: analysis.machine, kind: "recording" });
    const fields = await new ExampleProgram("qemu_analyze", [output, "--device", "timer"]).end();
    expect(fields.stdout).toMatch(/cpu_clock_offset: int64 = -?\d+/);
  },
);

test("analyze() and qemu_analyze.ts refuse what is neither, and wrong arguments", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("noise");
  await Bun.write(path, "no migration in here");
  await expect(analyze(path)).rejects.toMatchObject({ code: "ERR_MULTIFD_STREAM_MAGIC" });
  await expect(analyze(folder.file("nothing"))).rejects.toBeInstanceOf(MultifdError);
  await expect(analyze(path, { offset: -1 })).rejects.toBeInstanceOf(RangeError);
  const refused = await new ExampleProgram("qemu_analyze", [path]).end();
  expect(refused.status).toBe(1);
  expect(refused.stderr.trimEnd().split("\n")).toHaveLength(1);
  expect((await new ExampleProgram("qemu_analyze", []).end()).status).toBe(2);
  expect((await new ExampleProgram("qemu_analyze", ["--help"]).end()).stdout).toContain("Usage");
});
