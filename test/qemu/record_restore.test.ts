import { expect, test } from "bun:test";
import { mkdir, readdir, rm } from "node:fs/promises";
import {
  analyze,
  capabilities,
  ChannelError,
  HandshakeError,
  MultifdError,
  PacketError,
  record,
  Recording,
  restore,
  TimeoutError,
  type RecordOptions,
} from "../../mod.ts";
import { ExampleProgram } from "../kit/example_program.ts";
import {
  endpointOf,
  GuestTest,
  migrateAgain,
  slowDown,
  speedUp,
  uriOf,
  type Side,
} from "./guest_migration.ts";
import { expectRecordAndRestore, type InteropCase } from "./interop_case.ts";
import { LARGE_MACHINE } from "./large_machine.ts";
import { qemuTest } from "./qemu_case.ts";
import { LimitMs } from "../kit/limits.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";

const SMOKE: readonly (readonly [name: string, options: InteropCase])[] = [
  [
    "tcp/none/2 to zlib/1, q35",
    { from: { channels: 2, compression: "none" }, to: { channels: 1, compression: "zlib" } },
  ],
  [
    "unix/zlib/4 to zstd/2, pc, stopped guest, no return path",
    {
      machine: "pc",
      transport: "unix",
      rounds: 0,
      from: { channels: 4, compression: "zlib", returnPath: false },
      to: { channels: 2, compression: "zstd", returnPath: false },
    },
  ],
  [
    "tcp/zstd/1 to none/4, pc-i440fx-8.0, sync per section",
    {
      machine: "pc-i440fx-8.0",
      from: { channels: 1, compression: "zstd" },
      to: { channels: 4, compression: "none" },
    },
  ],
  [
    "tcp/zstd/16 to zstd/16, switchover-ack, validate-uuid, zero pages undetected",
    {
      uuid: UUID,
      from: {
        channels: 16,
        compression: "zstd",
        switchoverAck: true,
        validateUuid: true,
        zeroPageDetection: "none",
      },
      to: {
        channels: 16,
        compression: "zstd",
        switchoverAck: true,
        validateUuid: true,
        zeroPageDetection: "none",
      },
    },
  ],
  [
    "tcp/none/2 to none/2, zero pages on the main connection, 3 rounds",
    {
      rounds: 3,
      from: { channels: 2, compression: "none", zeroPageDetection: "legacy" },
      to: { channels: 2, compression: "none", zeroPageDetection: "legacy" },
    },
  ],
  [
    "a machine with virtio-mem, whose state goes before the RAM, and devices with large state",
    {
      from: { channels: 2, compression: "zlib" },
      to: { channels: 2, compression: "zstd" },
      extraArgs: LARGE_MACHINE,
    },
  ],
];

for (const returnPath of [true, false]) {
  const side: Side = { channels: 3, compression: "zstd", returnPath };
  const how = returnPath ? "" : ", no return path";
  qemuTest(`record and restore: a stream without VM description, any channels${how}`, async () => {
    await using guest = await GuestTest.create({ machine: "q35,suppress-vmdesc=on" });
    await using source = await guest.startSource(side);
    const output = guest.path("vm.rec");
    {
      const anyChannels = { endpoint: "127.0.0.1:0", channels: "auto", output } as const;
      await using recorder = await record({ ...anyChannels, compression: "zstd" });
      await source.migrate(uriOf(recorder.endpoint));
      expect((await recorder.complete()).source.channels).toBe(3);
    }
    await source.waitMigration(LimitMs.migration);
    const { hasDescription, devices } = await analyze(output);
    expect(hasDescription).toBe(false);
    expect(devices.map(({ name }) => name)).toContain("globalstate");
    await using target = await guest.startTarget(side);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    const to = { input: output, endpoint, channels: 3, compression: "zstd", returnPath } as const;
    await using restorer = await restore(to);
    await restorer.complete();
    await target.waitMigration(LimitMs.migration);
    await guest.expectGoesOn(source, target);
  });
}

for (const [name, options] of SMOKE) {
  qemuTest(`record and restore: ${name}`, () => expectRecordAndRestore(options));
}

for (const { method, engines } of capabilities().methods) {
  if (method !== "zlib" && method !== "zstd") continue;
  const side: Side = { channels: 2, compression: method };
  for (const { engine, library, available } of engines) {
    const name = `record and restore: ${method} by ${engine}, both ways`;
    if (available) {
      qemuTest(name, () => expectRecordAndRestore({ from: side, to: side, engines: { engine } }));
    } else {
      // An engine is a system library; where it is not installed there is nothing to run.
      test.skip(`${name} (needs ${library})`, () => {});
    }
  }
}

qemuTest(
  "record() keeps a source's guest running after each mismatch, and records it after one",
  async () => {
    await using guest = await GuestTest.create({ uuid: UUID });
    const side: Side = { channels: 4, compression: "zlib" };
    const good: RecordOptions = {
      endpoint: "127.0.0.1:0",
      channels: 4,
      compression: "zlib",
      output: guest.path("vm.rec"),
      timeouts: { connectMs: 2000 },
    };
    const mismatches: readonly [Partial<RecordOptions>, new () => Error, string][] = [
      [{ channels: 2 }, HandshakeError as never, "ERR_MULTIFD_HANDSHAKE_ID"],
      [{ channels: 6 }, TimeoutError as never, "ERR_MULTIFD_TIMEOUT_CONNECT"],
      [
        { uuid: "ffffffff-4455-6677-8899-aabbccddeeff" },
        HandshakeError as never,
        "ERR_MULTIFD_HANDSHAKE_UUID",
      ],
      [{ machine: "pc-i440fx-10.0" }, MultifdError as never, "ERR_MULTIFD_STREAM_MACHINE"],
      [{ ramBytesMax: 1 << 20 }, MultifdError as never, "ERR_MULTIFD_LIMIT_RAM"],
      [{ compression: "zstd" }, PacketError as never, "ERR_MULTIFD_PACKET_METHOD"],
    ];
    for (const [wrong, ErrorClass, code] of mismatches) {
      // Each with a source of its own: QEMU 10.0.2 may wait for ever when it loses a channel while it
      // synchronises all of them, and cannot migrate again then (docs/qemu.md).
      await using source = await guest.startSource(side);
      await slowDown(source); // no round ends while it is refused, and so none is synchronised
      await using recorder = await record({ ...good, ...wrong });
      const complete = recorder.complete().catch((error: unknown) => error);
      await source.migrate(uriOf(recorder.endpoint));
      const error = await complete;
      expect(error).toBeInstanceOf(ErrorClass);
      expect(error).toMatchObject({ code, side: "destination" });
      await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
        status: "failed",
      });
      await source.waitStatus("running");
      expect(await readdir(guest.folder)).toEqual([]);
      if (code !== "ERR_MULTIFD_PACKET_METHOD") continue;
      await speedUp(source);
      await using another = await record({ ...good, timeouts: {} });
      await migrateAgain(source, uriOf(another.endpoint));
      expect(await another.complete()).toMatchObject({ uuid: UUID });
      await source.waitMigration(LimitMs.migration);
    }
  },
);

qemuTest("record() refuses a source without return-path, whose guest goes on", async () => {
  await using guest = await GuestTest.create({});
  await using source = await guest.startSource({
    channels: 2,
    compression: "none",
    returnPath: false,
  });
  await slowDown(source); // nothing ends while it is refused
  const output = guest.path("vm.rec");
  const options = { endpoint: "127.0.0.1:0", channels: 2, output } as const;
  await using recorder = await record({ ...options, requireReturnPath: true });
  const complete = recorder.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(recorder.endpoint));
  expect(await complete).toMatchObject({ code: "ERR_MULTIFD_STREAM_RETURN_PATH" });
  await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
    status: "failed",
  });
  await source.waitStatus("running");
  expect(await readdir(guest.folder)).toEqual([]);
});

qemuTest("restore() ends with a reason when the waiting QEMU does not fit", async () => {
  await using guest = await GuestTest.create({ uuid: UUID });
  const output = guest.path("vm.rec");
  await using source = await guest.startSource({ channels: 2, compression: "none" });
  {
    await using recorder = await record({ endpoint: "127.0.0.1:0", channels: 2, output });
    await source.migrate(uriOf(recorder.endpoint));
    await recorder.complete();
  }
  const side: Side = { channels: 4, compression: "zlib" };
  // A QEMU that has met a wrong packet may just stay silent.
  const timeouts = { connectMs: 2000, stallMs: 3000, idleMs: 3000 };
  const good = { input: output, channels: 4, compression: "zlib", timeouts } as const;
  const mismatches = [
    [{ channels: 2 }, "ERR_MULTIFD_TIMEOUT_ANSWER"],
    [{ channels: 6 }, "ERR_MULTIFD"],
    [{ compression: "zstd" }, "ERR_MULTIFD"],
    [{ uuid: "ffffffff-4455-6677-8899-aabbccddeeff" }, "ERR_MULTIFD"],
  ] as const;
  for (const [wrong, code] of mismatches) {
    await using target = await guest.startTarget(side);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    const attempt = async (): Promise<void> => {
      await using restorer = await restore({ ...good, ...wrong, endpoint });
      await restorer.complete();
    };
    const error = await attempt().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MultifdError);
    expect((error as MultifdError).side).toBe("source");
    expect((error as MultifdError).code).toStartWith(code);
    // QEMU says nothing of the reason, so the error says where to look for it.
    expect((error as MultifdError).message).toMatch(/the usual causes are|number of channels$/);
  }
  await using target = await guest.startTarget(side);
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  await using restorer = await restore({ ...good, timeouts: {}, endpoint });
  await restorer.complete();
  await target.waitMigration(LimitMs.migration);
  await guest.expectGoesOn(source, target);
});

qemuTest("record() gives the guest back when the recording cannot be written", async () => {
  await using guest = await GuestTest.create();
  await using source = await guest.startSource({ channels: 2, compression: "zstd" });
  const folder = guest.path("folder");
  await mkdir(folder);
  const options = { endpoint: "127.0.0.1:0", channels: 2, compression: "zstd" } as const;
  {
    await using recorder = await record({ ...options, output: `${folder}/vm.rec` });
    const complete = recorder.complete().catch((error: unknown) => error);
    await rm(folder, { recursive: true });
    await source.migrate(uriOf(recorder.endpoint));
    expect(await complete).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "ENOENT" });
  }
  await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
    status: "failed",
  });
  await source.waitStatus("running");
  await using recorder = await record({ ...options, output: guest.path("vm.rec") });
  await migrateAgain(source, uriOf(recorder.endpoint));
  await recorder.complete();
  await source.waitMigration(LimitMs.migration);
});

qemuTest(
  "record() keeps nothing of a source that is killed right before the switch-over",
  async () => {
    await using guest = await GuestTest.create();
    await using source = await guest.startSource({ channels: 2, compression: "none" });
    await source.setCapabilities({ "pause-before-switchover": true });
    const output = guest.path("vm.rec");
    await using recorder = await record({ endpoint: "127.0.0.1:0", channels: 2, output });
    const complete = recorder.complete().catch((error: unknown) => error);
    await source.migrate(uriOf(recorder.endpoint));
    while ((await source.queryMigrate()).status !== "pre-switchover") await Bun.sleep(5);
    await source.kill();
    expect(await complete).toMatchObject({ code: "ERR_MULTIFD_CHANNEL_ENDED" });
    expect(await readdir(guest.folder)).toEqual([]);
  },
);

qemuTest("record() and restore() notice a QEMU that is killed on the way", async () => {
  await using guest = await GuestTest.create();
  const output = guest.path("vm.rec");
  const side: Side = { channels: 2, compression: "none" };
  {
    await using source = await guest.startSource(side);
    await slowDown(source);
    await using recorder = await record({ endpoint: "127.0.0.1:0", channels: 2, output });
    const complete = recorder.complete().catch((error: unknown) => error);
    await source.migrate(uriOf(recorder.endpoint));
    while (recorder.statistics().normalPages < 100) await Bun.sleep(5);
    await source.kill();
    expect(await complete).toBeInstanceOf(ChannelError);
    expect(await readdir(guest.folder)).toEqual([]);
  }
  await using source = await guest.startSource(side);
  {
    await using recorder = await record({ endpoint: "127.0.0.1:0", channels: 2, output });
    await source.migrate(uriOf(recorder.endpoint));
    await recorder.complete();
  }
  await using target = await guest.startTarget(side);
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  await using restorer = await restore({ input: output, endpoint, maxBandwidth: 8 << 20 });
  const complete = restorer.complete().catch((error: unknown) => error);
  while (restorer.statistics().normalPages < 100) await Bun.sleep(5);
  await target.kill();
  expect(await complete).toBeInstanceOf(MultifdError);
  using recording = await Recording.open(output);
  expect(recording.blocks[0]?.bytes).toBe(guest.ramBytes);
});

qemuTest(
  "qemu_record.ts and qemu_restore.ts work; killed ones leave the guest running",
  async () => {
    await using guest = await GuestTest.create();
    const output = guest.path("vm.rec");
    await using source = await guest.startSource({ channels: 2, compression: "zstd" });
    const recordArguments = ["--listen", "127.0.0.1:0", "--compression", "zstd"];
    recordArguments.push("--output", output, "--json");
    {
      await slowDown(source);
      await using program = new ExampleProgram("qemu_record", recordArguments);
      await source.migrate(uriOf(await program.listening()));
      while (((await source.queryMigrate()).ram?.multifdBytes ?? 0) < 1 << 20) await Bun.sleep(5);
      program.kill("SIGKILL");
      await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
        status: "failed",
      });
      await source.waitStatus("running");
      expect(await readdir(guest.folder)).toEqual([]);
    }
    await speedUp(source);
    await using program = new ExampleProgram("qemu_record", recordArguments);
    await migrateAgain(source, uriOf(await program.listening()));
    expect(await program.end()).toMatchObject({
      status: 0,
      result: { ok: true, role: "recorder", file: output },
    });
    await source.waitMigration(LimitMs.migration);

    await using target = await guest.startTarget({ channels: 3, compression: "zlib" });
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    const restoreArguments = ["--input", output, "--connect", endpoint, "--channels", "3"];
    restoreArguments.push("--compression", "zlib", "--json");
    await using restoring = new ExampleProgram("qemu_restore", restoreArguments);
    expect(await restoring.end()).toMatchObject({
      status: 0,
      result: { ok: true, role: "restorer", confirmed: true },
    });
    await target.waitMigration(LimitMs.migration);
    await guest.expectGoesOn(source, target);
  },
);
