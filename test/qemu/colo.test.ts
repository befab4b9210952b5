/**
 * COLO with a real primary. QEMU knows it over multifd from 11.0 on; the guest then goes on in QEMUs
 * of any age that have its machine type.
 */
import { expect } from "bun:test";
import { readdir } from "node:fs/promises";
import {
  analyze,
  listenSecondary,
  restore,
  writeRecording,
  type ColoSecondary,
  type ReceivedCheckpoint,
  type SecondaryFailOver,
} from "../../mod.ts";
import { CutProxy } from "../kit/cut_proxy.ts";
import { ExampleProgram } from "../kit/example_program.ts";
import {
  endpointOf,
  GuestTest,
  uriOf,
  type GuestMachine,
  type GuestMoment,
  type Side,
} from "./guest_migration.ts";
import { LARGE_MACHINE } from "./large_machine.ts";
import type { Qemu } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";
import { LimitMs } from "../kit/limits.ts";

/** Between two checkpoints, so that there is always time for several of them. */
const DELAY_MS = 100;
/** So long that there is no checkpoint but those that are asked for. */
const NO_DELAY_ENDS_MS = 3_600_000;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";

const PRIMARY: Side = { channels: 2, compression: "none", version: "11.1" };

/** When the primary is killed, in or after the checkpoint with that number. */
type Moment = "between two" | "at a request" | "while pages arrive" | "while it is loaded";
const LAST = 3;
/** A QEMU that has COLO over multifd. */
const VERSIONS: readonly QemuVersion[] = ["11.1"];
/** The number of a round and a line end, as the guest prints it. */
const ROUND_CHARS = 9;

async function startPrimary(guest: GuestTest, side: Side, delayMs = DELAY_MS): Promise<Qemu> {
  const primary = await guest.startSource(side);
  await primary.setCapabilities({ "x-colo": true });
  await primary.setParameters({ "x-checkpoint-delay": delayMs });
  return primary;
}

/** Asks a primary for a checkpoint now: a new delay counts from a checkpoint at once. */
async function requestCheckpoint(primary: Qemu): Promise<void> {
  await primary.setParameters({ "x-checkpoint-delay": NO_DELAY_ENDS_MS });
}

/** The primary as it stood still at each checkpoint: it waits until the listeners are done. */
function watch(guest: GuestTest, primary: Qemu, secondary: ColoSecondary) {
  const moments = new Map<number, GuestMoment>();
  const checkpoints: ReceivedCheckpoint[] = [];
  secondary.on("checkpoint", async (checkpoint) => {
    checkpoints.push(checkpoint);
    moments.delete(checkpoint.epoch - 2);
    moments.set(checkpoint.epoch, await guest.momentOf(primary));
  });
  return { moments, checkpoints };
}

/** Resolves when a checkpoint is in place and both sides have gone on. */
function loaded(secondary: ColoSecondary, epoch: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  secondary.on("loaded", (record) => {
    if (record.epoch === epoch) resolve();
  });
  return promise;
}

/** Makes checkpoints, each with pages that the guest has written since the one before. */
async function makeCheckpoints(primary: Qemu, secondary: ColoSecondary): Promise<void> {
  for (let epoch = 1; epoch <= LAST; epoch++) {
    const done = loaded(secondary, epoch);
    await waitRound(primary);
    await requestCheckpoint(primary);
    await done;
  }
}

/** Waits until the guest has written to all its pages again. */
async function waitRound(primary: Qemu): Promise<void> {
  const { length } = await primary.serialOutput();
  await primary.waitSerial(new RegExp(`^[^]{${length + 2 * ROUND_CHARS}}`), LimitMs.migration);
}

/** Makes checkpoints, or follows periodic ones, and kills the primary at that moment. */
async function killAt(
  moment: Moment,
  primary: Qemu,
  secondary: ColoSecondary,
  proxy: CutProxy,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (moment === "while it is loaded") {
    secondary.on("checkpoint", ({ epoch }) => {
      if (epoch === LAST) resolve(primary.kill()); // behind the listener that looked at it
    });
    return promise;
  }
  await secondary.ready();
  await makeCheckpoints(primary, secondary);
  if (moment === "between two") return primary.kill();
  await waitRound(primary);
  if (moment === "at a request") {
    secondary.on("request", () => resolve(primary.kill()));
  } else {
    let killed = false;
    proxy.filter = (chunk, from, connection) => {
      if (connection !== "channel" || from !== "source") return chunk;
      if (killed) return undefined;
      killed = true;
      resolve(primary.kill());
      return chunk.subarray(0, chunk.byteLength / 2); // in the middle of a packet
    };
  }
  await requestCheckpoint(primary);
  return promise;
}

/** Sends a recording into a new QEMU and proves that its guest is the one of `moment`. */
async function expectSurvives(
  guest: GuestTest,
  moment: GuestMoment,
  to: Side,
  input: Parameters<typeof restore>[0]["input"],
): Promise<void> {
  await using target = await guest.startTarget(to);
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  const { channels, compression } = to;
  await using restorer = await restore({ input, endpoint, channels, compression });
  await restorer.complete();
  await target.waitMigration(LimitMs.migration);
  await guest.expectGoesOn(moment, target);
}

interface ColoCase extends GuestMachine {
  readonly moment: Moment;
  readonly from: Side;
  readonly to: Side;
}

async function expectSurvivesHost({ moment, from, to, ...machine }: ColoCase): Promise<void> {
  await using guest = await GuestTest.create(machine);
  const isPeriodic = moment === "while it is loaded";
  await using primary = await startPrimary(guest, from, isPeriodic ? DELAY_MS : NO_DELAY_ENDS_MS);
  const { channels, compression } = from;
  await using secondary = await listenSecondary({
    endpoint: "127.0.0.1:0",
    channels,
    compression,
    capture: true,
  });
  const { moments, checkpoints } = watch(guest, primary, secondary);
  using proxy = new CutProxy(secondary.endpoint);
  await primary.migrate(uriOf(proxy.endpoint));
  await killAt(moment, primary, secondary, proxy);
  const left = await secondary.ended();

  expect(left.epoch).toBe(LAST);
  const isUnderWay = moment === "at a request" || moment === "while pages arrive";
  expect(left.pending).toEqual(isUnderWay ? { epoch: LAST + 1, applied: "no" } : undefined);
  expect(checkpoints.map(({ epoch }) => epoch)).toEqual([1, 2, 3]);
  const { recording } = left;
  expect(checkpoints.at(-1)!.guest).toBe(recording!.state);
  const output = guest.path("vm.rec");
  const metadata = await writeRecording(output, recording!);
  expect(metadata.uuid).toBe(machine.uuid ?? "00000000-0000-0000-0000-000000000000");
  const { devices, hasDescription } = await analyze(output);
  expect(hasDescription).toBe(true);
  expect(devices.map(({ name }) => name)).toContain("globalstate");
  await expectSurvives(guest, moments.get(LAST)!, to, output);
}

const SURVIVALS: readonly (readonly [name: string, options: ColoCase])[] = [
  [
    "none/2 to zlib/3, primary killed between two checkpoints",
    {
      moment: "between two",
      from: PRIMARY,
      to: { channels: 3, compression: "zlib", version: "11.1" },
    },
  ],
  [
    "zstd/2 to zstd/2, pc, with uuid, primary killed while pages arrive",
    {
      machine: "pc",
      uuid: UUID,
      moment: "while pages arrive",
      from: { ...PRIMARY, compression: "zstd", validateUuid: true },
      to: { channels: 2, compression: "zstd", version: "11.1" },
    },
  ],
  [
    "zstd/2 to none/2 of QEMU 10.0, q35-10.0, periodic, primary killed while a checkpoint is loaded",
    {
      machine: "pc-q35-10.0",
      cpu: "qemu64",
      moment: "while it is loaded",
      from: { ...PRIMARY, compression: "zstd" },
      to: { channels: 2, compression: "none" },
    },
  ],
  [
    "none/2 to none/1, sync per section, primary killed at a request",
    {
      machine: "pc-i440fx-8.0",
      moment: "at a request",
      from: PRIMARY,
      to: { channels: 1, compression: "none", version: "11.1" },
    },
  ],
  [
    "none/2 to none/2, a machine with virtio-mem, whose state goes before the RAM",
    {
      extraArgs: LARGE_MACHINE,
      moment: "between two",
      from: PRIMARY,
      to: PRIMARY,
    },
  ],
];

for (const [name, options] of SURVIVALS) {
  qemuTest(
    `COLO: the guest survives its host: ${name}`,
    () => expectSurvivesHost(options),
    undefined,
    options.to.version === undefined ? [...VERSIONS, "10.0"] : VERSIONS,
  );
}

qemuTest(
  "COLO: a primary that dies before its first checkpoint leaves the guest of the migration",
  async () => {
    await using guest = await GuestTest.create();
    await using primary = await startPrimary(guest, PRIMARY, NO_DELAY_ENDS_MS);
    await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0", capture: true });
    await primary.migrate(uriOf(secondary.endpoint));
    await secondary.ready();
    await primary.kill();
    const left = await secondary.ended();
    expect(left).toMatchObject({ epoch: 0, pending: undefined });
    await using target = await guest.startTarget(PRIMARY);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    // As it is in memory, without a file.
    await using restorer = await restore({ input: left.recording!, endpoint });
    expect(restorer.metadata.machine).toBe(left.recording!.state.machine);
    await restorer.complete();
    await target.waitMigration(LimitMs.migration);
    await target.cont();
    await target.waitSerial(/([0-9a-f]{8}\n){3}/, LimitMs.migration);
  },
  undefined,
  VERSIONS,
);

qemuTest(
  "COLO: single checkpoints; after a take-over the primary's own guest goes on",
  async () => {
    await using guest = await GuestTest.create();
    await using primary = await startPrimary(guest, PRIMARY, NO_DELAY_ENDS_MS);
    await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0", capture: true });
    const { moments } = watch(guest, primary, secondary);
    await primary.migrate(uriOf(secondary.endpoint));
    await secondary.ready();
    for (let epoch = 1; epoch <= 2; epoch++) {
      const done = loaded(secondary, epoch);
      await requestCheckpoint(primary);
      await done;
      expect(secondary.epoch).toBe(epoch);
    }
    const left: SecondaryFailOver = await secondary.takeOver();
    expect(left).toMatchObject({ epoch: 2, pending: undefined, cause: undefined });
    // The one guest is two now, each with a life of its own.
    await primary.execute("x-colo-lost-heartbeat");
    await primary.waitMigration(LimitMs.migration);
    await primary.waitStatus("running");
    await waitRound(primary);
    await expectSurvives(guest, moments.get(2)!, PRIMARY, left.recording!);
  },
  undefined,
  VERSIONS,
);

qemuTest(
  "COLO: without capture a guest is refused by a message that names it, and runs on",
  async () => {
    await using guest = await GuestTest.create();
    await using primary = await startPrimary(guest, PRIMARY);
    await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0" });
    const ended = secondary.ended().catch((error: unknown) => error);
    await primary.migrate(uriOf(secondary.endpoint));
    const error = await ended;
    expect(error).toMatchObject({ code: "ERR_MULTIFD_STREAM_SECTION", side: "destination" });
    expect((error as Error).message).toContain("option capture");
    await expect(primary.waitMigration(LimitMs.migration)).rejects.toMatchObject({
      status: "failed",
    });
    await primary.waitStatus("running");
  },
  undefined,
  VERSIONS,
);

qemuTest(
  "COLO: qemu_colo.ts writes the guest when its host is gone, and qemu_restore.ts restores it",
  async () => {
    await using guest = await GuestTest.create();
    await using primary = await startPrimary(guest, PRIMARY);
    const output = guest.path("vm.rec");
    const args = ["--listen", "127.0.0.1:0", "--output", output, "--json"];
    await using program = new ExampleProgram("qemu_colo", args);
    await primary.migrate(uriOf(await program.listening()));
    while ((await primary.queryMigrate()).status !== "colo") await Bun.sleep(10);
    await Bun.sleep(10 * DELAY_MS);
    await primary.kill();
    const { status, stderr, stdout, result } = await program.end();
    expect([status, stderr]).toEqual([0, ""]);
    expect(result).toMatchObject({ ok: true, role: "secondary", file: output });
    const epoch = result["epoch"] as number;
    expect(epoch).toBeGreaterThan(0);
    expect(stdout).toContain('{"ready":true}');
    // A primary that was killed before it heard of the last one leaves no pause to tell of.
    const [last] = stdout
      .matchAll(/"checkpoint":(\d+)/g)
      .map(([, told]) => Number(told))
      .toArray()
      .slice(-1);
    expect([epoch, epoch - 1]).toContain(last!);
    expect(await readdir(guest.folder)).toEqual(["vm.rec"]);

    await using target = await guest.startTarget(PRIMARY);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    const restoreArgs = ["--input", output, "--connect", endpoint, "--json"];
    await using restoring = new ExampleProgram("qemu_restore", restoreArgs);
    expect(await restoring.end()).toMatchObject({ status: 0, result: { ok: true } });
    await target.waitMigration(LimitMs.migration);
    await target.cont();
    await target.waitSerial(/([0-9a-f]{8}\n){3}/, LimitMs.migration);
  },
  undefined,
  VERSIONS,
);

qemuTest(
  "COLO: qemu_colo.ts ends the pair after as many checkpoints as wanted",
  async () => {
    await using guest = await GuestTest.create();
    await using primary = await startPrimary(guest, PRIMARY);
    const args = ["--listen", "127.0.0.1:0", "--output", guest.path("vm.rec"), "--json"];
    await using program = new ExampleProgram("qemu_colo", [...args, "--checkpoints", "2"]);
    await primary.migrate(uriOf(await program.listening()));
    const { status, result } = await program.end();
    expect(status).toBe(0);
    expect(result["epoch"]).toBeGreaterThanOrEqual(2);
    await primary.waitStatus("running");
  },
  undefined,
  VERSIONS,
);
