import { expect } from "bun:test";
import { residentMemory } from "../../bench/cpu_time.ts";
import { ChannelError, MultifdError, PeerError, relay, type RelayOptions } from "../../mod.ts";
import { ExampleProgram } from "../kit/example_program.ts";
import {
  configure,
  endpointOf,
  GuestTest,
  migrateAgain,
  slowDown,
  speedUp,
  uriOf,
  type GuestMachine,
  type Side,
} from "./guest_migration.ts";
import { LARGE_MACHINE } from "./large_machine.ts";
import type { Qemu } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import { expectRelay, expectRelayPair } from "./interop_case.ts";
import { LimitMs } from "../kit/limits.ts";

const MIB = 1 << 20;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const OTHER_UUID = "ffeeddcc-4455-6677-8899-aabbccddeeff";

for (const [name, options] of [
  [
    "tcp/none/2 to zstd/4, q35, 3 rounds",
    {
      rounds: 3,
      from: { channels: 2, compression: "none" },
      to: { channels: 4, compression: "zstd" },
    },
  ],
  [
    "unix/zlib/4 to none/1, pc, stopped guest, no return path",
    {
      machine: "pc",
      transport: "unix",
      rounds: 0,
      from: { channels: 4, compression: "zlib", returnPath: false },
      to: { channels: 1, compression: "none", returnPath: false },
    },
  ],
  [
    "tcp/zstd/1 to zlib/16, pc-i440fx-8.0, sync per section",
    {
      machine: "pc-i440fx-8.0",
      from: { channels: 1, compression: "zstd" },
      to: { channels: 16, compression: "zlib" },
    },
  ],
  [
    "tcp/zstd/2 to zstd/2, switchover-ack, validate-uuid, zero pages on the main connection",
    {
      uuid: UUID,
      from: {
        channels: 2,
        compression: "zstd",
        switchoverAck: true,
        validateUuid: true,
        zeroPageDetection: "legacy",
      },
      to: { channels: 2, compression: "zstd", switchoverAck: true, validateUuid: true },
    },
  ],
  [
    "a machine with virtio-mem, whose state goes before the RAM, and devices with large state",
    {
      from: { channels: 2, compression: "none", zeroPageDetection: "none" },
      to: { channels: 2, compression: "none" },
      extraArgs: LARGE_MACHINE,
    },
  ],
] as const) {
  qemuTest(`relay: ${name}`, () => expectRelay(options));
}

qemuTest("two relays, one beside each QEMU: zlib/1, between them zstd/4, then none/3", () =>
  expectRelayPair({
    from: { channels: 1, compression: "zlib" },
    between: { channels: 4, compression: "zstd" },
    to: { channels: 3, compression: "none" },
  }),
);

interface Pair extends AsyncDisposable {
  readonly guest: GuestTest;
  readonly source: Qemu;
  readonly target: Qemu;
  readonly options: RelayOptions;
}

/** A source and a destination, the source so slow that there is time to disturb it. */
async function slowPair(machine: GuestMachine = {}, to: Partial<Side> = {}): Promise<Pair> {
  const stack = new AsyncDisposableStack();
  const guest = stack.use(await GuestTest.create(machine));
  const side: Side = { channels: 2, compression: "none" };
  const source = stack.use(await guest.startSource(side));
  await slowDown(source);
  const target = stack.use(await guest.startTarget({ ...side, ...to }));
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0", false);
  const options = {
    listen: { endpoint: "127.0.0.1:0", ...side },
    connect: { endpoint: endpointOf(uri), ...side },
  };
  return { guest, source, target, options, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/**
 * Waits until pages are on their way. A destination that has not yet seen all its connections would
 * not notice their end either.
 */
async function underWay(source: Qemu, target: Qemu): Promise<void> {
  while ((await target.queryMigrate()).status !== "active") await Bun.sleep(5);
  while (((await source.queryMigrate()).ram?.multifdBytes ?? 0) < MIB) await Bun.sleep(5);
}

/** The source's migration has failed, its guest runs, and it can migrate to somebody else. */
async function expectGuestStays({ guest, source }: Pair): Promise<void> {
  await expect(source.waitMigration(LimitMs.migration)).rejects.toThrow();
  await expectMigratesAgain(guest, source);
}

async function expectMigratesAgain(guest: GuestTest, source: Qemu): Promise<void> {
  await source.waitStatus("running");
  const side: Side = { channels: 3, compression: "zlib" };
  await using target = await guest.startTarget(side);
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  const end = { channels: 3, compression: "zlib" } as const;
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", ...end },
    connect: { endpoint, ...end },
  });
  await configure(source, side);
  await migrateAgain(source, uriOf(relaying.endpoint));
  await relaying.complete();
  await Promise.all([
    source.waitMigration(LimitMs.migration),
    target.waitMigration(LimitMs.migration),
  ]);
  await guest.expectGoesOn(source, target);
}

qemuTest("relay() passes a cancel of the source on, and the guest migrates again", async () => {
  await using pair = await slowPair();
  const { source, target, options } = pair;
  await using relaying = await relay(options);
  const complete = relaying.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(relaying.endpoint));
  await underWay(source, target);
  await source.execute("migrate_cancel");
  expect(await complete).toBeInstanceOf(MultifdError);
  await expect(target.waitMigration(LimitMs.migration)).rejects.toMatchObject({ status: "failed" });
  await expectGuestStays(pair);
});

qemuTest("relay() gives the guest back when the destination is killed", async () => {
  await using pair = await slowPair();
  const { source, target, options } = pair;
  await using relaying = await relay(options);
  const complete = relaying.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(relaying.endpoint));
  await underWay(source, target);
  await target.kill();
  expect(await complete).toMatchObject({ side: "source", peer: options.connect.endpoint });
  await expectGuestStays(pair);
});

qemuTest("relay() fails at the destination when the source is killed", async () => {
  await using pair = await slowPair();
  const { source, target, options } = pair;
  await using relaying = await relay(options);
  const complete = relaying.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(relaying.endpoint));
  await underWay(source, target);
  await source.kill();
  expect(await complete).toBeInstanceOf(MultifdError);
  await expect(target.waitMigration(LimitMs.migration)).rejects.toMatchObject({ status: "failed" });
});

qemuTest("relay() ends both sides when one is killed right before the switch-over", async () => {
  for (const killed of ["source", "target"] as const) {
    await using pair = await slowPair();
    const { source, target, options } = pair;
    await speedUp(source);
    await source.setCapabilities({ "pause-before-switchover": true });
    await using relaying = await relay(options);
    const complete = relaying.complete().catch((error: unknown) => error);
    await source.migrate(uriOf(relaying.endpoint));
    while ((await source.queryMigrate()).status !== "pre-switchover") await Bun.sleep(5);
    expect(await source.status()).not.toBe("running");
    await pair[killed].kill();
    expect(await complete).toBeInstanceOf(MultifdError);
    if (killed === "source") {
      await expect(target.waitMigration(LimitMs.migration)).rejects.toMatchObject({
        status: "failed",
      });
      continue;
    }
    // It notices when it goes on; the guest then runs again.
    await source.execute("migrate-continue", { state: "pre-switchover" }).catch(() => {});
    await source.setCapabilities({ "pause-before-switchover": false }).catch(() => {});
    await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
      status: "failed",
    });
    await source.waitStatus("running");
  }
});

qemuTest("relay() gives the guest back when it is cancelled itself", async () => {
  await using pair = await slowPair();
  const { source, target, options } = pair;
  const controller = new AbortController();
  await using relaying = await relay({ ...options, signal: controller.signal });
  const complete = relaying.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(relaying.endpoint));
  await underWay(source, target);
  controller.abort(new Error("not today"));
  expect(await complete).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
  await expect(target.waitMigration(LimitMs.migration)).rejects.toMatchObject({ status: "failed" });
  await expectGuestStays(pair);
});

qemuTest("relay() tells the source that the destination could not load the guest", async () => {
  // The destination has one device less: it finds out in the device state, after all of the RAM.
  await using guest = await GuestTest.create({ extraArgs: ["-device", "e1000,rombar=0"] });
  const side: Side = { channels: 2, compression: "zstd" };
  await using source = await guest.startSource(side);
  await using target = await guest.startTarget(side, { extraArgs: [] });
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0", false);
  const end = { channels: 2, compression: "zstd" } as const;
  await using relaying = await relay({
    listen: { endpoint: "127.0.0.1:0", ...end },
    connect: { endpoint: endpointOf(uri), ...end },
  });
  const complete = relaying.complete().catch((error: unknown) => error);
  await source.migrate(uriOf(relaying.endpoint));
  // It says so, or just resets the connection when that is quicker.
  const error = await complete;
  expect(error instanceof PeerError || error instanceof ChannelError).toBe(true);
  expect((error as MultifdError).side).toBe("source");
  await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({ status: "failed" });
  await expectMigratesAgain(guest, source);
});

qemuTest("relay() changes the uuid, and refuses a destination that is not there", async () => {
  await using guest = await GuestTest.create({ uuid: UUID });
  const side: Side = { channels: 2, compression: "none", validateUuid: true };
  await using source = await guest.startSource(side);
  const listen = { endpoint: "127.0.0.1:0", channels: 2 };
  {
    await slowDown(source); // no round of it ends meanwhile
    const connect = { endpoint: `unix:${guest.path("nobody")}`, channels: 2 };
    await using relaying = await relay({ listen, connect });
    const complete = relaying.complete().catch((error: unknown) => error);
    await source.migrate(uriOf(relaying.endpoint));
    expect(await complete).toMatchObject({ errno: "ENOENT", side: "source", phase: "connect" });
    await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
      status: "failed",
    });
  }
  await speedUp(source);
  await using target = await guest.startTarget(side, { uuid: OTHER_UUID });
  const uri = await target.migrateIncoming(`unix:${guest.path("target")}`);
  const connect = { endpoint: endpointOf(uri), channels: 2 };
  await using relaying = await relay({ listen, connect, uuid: OTHER_UUID });
  await migrateAgain(source, uriOf(relaying.endpoint));
  await relaying.complete();
  await target.waitMigration(LimitMs.migration);
  await guest.expectGoesOn(source, target);
});

qemuTest(
  "qemu_relay.ts holds a part of the guest in memory, and gives it back when killed",
  async () => {
    await using guest = await GuestTest.create({ memoryMib: 384 }, 500);
    const side: Side = { channels: 2, compression: "none" };
    await using source = await guest.startSource(side);
    const args = ["--listen", "127.0.0.1:0", "--to-channels", "3", "--to-compression", "zstd"];
    args.push("--json", "--connect");
    const to: Side = { channels: 3, compression: "zstd" };
    {
      await using target = await guest.startTarget(to);
      await slowDown(source);
      const uri = await target.migrateIncoming("tcp:127.0.0.1:0", false);
      await using program = new ExampleProgram("qemu_relay", [...args, endpointOf(uri)]);
      await source.migrate(uriOf(await program.listening()));
      await underWay(source, target);
      program.kill("SIGKILL");
      await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
        status: "failed",
      });
      await source.waitStatus("running");
    }
    await using target = await guest.startTarget(to);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    await using program = new ExampleProgram("qemu_relay", [...args, endpoint]);
    const listening = await program.listening();
    const before = residentMemory(program.pid).rssBytes;
    await speedUp(source);
    await migrateAgain(source, uriOf(listening));
    let peak = 0;
    while ((await target.queryMigrate()).status !== "completed") {
      peak = Math.max(peak, residentMemory(program.pid).peakRssBytes);
      await Bun.sleep(5);
    }
    expect(await program.end()).toMatchObject({ status: 0, result: { ok: true, role: "relay" } });
    expect(peak - before).toBeLessThan(160 * MIB);
    await guest.expectGoesOn(source, target);
  },
  60_000,
);
