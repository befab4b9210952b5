/**
 * QEMUs of other ages than the machine's own, at both ends of a recording and of a relay.
 *
 * @module
 */
import { expect } from "bun:test";
import { record, Recording, relay, StreamError } from "../../mod.ts";
import { endpointOf, GuestTest, uriOf } from "./guest_migration.ts";
import { expectRecordAndRestore, expectRelay, type InteropCase } from "./interop_case.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";

/** The same in QEMUs of all ages. */
const CPU = "qemu64";

// By translation, QEMU 7.2 now and then loses a page of a guest that runs, whoever receives it; so
// its guests are stopped first.
const OLD_ROUNDS = 0;

const METHODS = ["none", "zlib", "zstd"] as const;

function oldCase(index: number, from: QemuVersion, to: QemuVersion): InteropCase {
  const compression = METHODS[index % METHODS.length]!;
  const other = METHODS[(index + 1) % METHODS.length]!;
  return {
    machine: index % 2 === 0 ? "pc-i440fx-7.2" : "pc-q35-7.2",
    cpu: CPU,
    transport: index % 2 === 0 ? "tcp" : "unix",
    rounds: OLD_ROUNDS,
    from: { version: from, channels: 1 + index, compression },
    to: { version: to, channels: 4 - index, compression: other },
  };
}

function nameOf({ machine, transport, from, to }: InteropCase): string {
  const side = ({ version, compression, channels }: InteropCase["from"]): string =>
    `${version}/${compression}/${channels}`;
  return `${side(from)} to ${side(to)}, ${machine}, ${transport}`;
}

for (const index of METHODS.keys()) {
  for (const [from, to] of [
    ["7.2", "7.2"],
    ["7.2", "10.0"],
    ["10.0", "7.2"],
  ] as const) {
    const options = oldCase(index, from, to);
    const needs = [from, to];
    if (from === to || index === 0) {
      const name = `ages: record and restore: ${nameOf(options)}`;
      qemuTest(name, () => expectRecordAndRestore(options), undefined, needs);
    }
    if (from === to || index === 1) {
      qemuTest(`ages: relay: ${nameOf(options)}`, () => expectRelay(options), undefined, needs);
    }
  }
}

interface NewCase {
  readonly machine: string;
  readonly from: QemuVersion;
  readonly to: QemuVersion;
  readonly switchoverAck: boolean;
}

// Machine types up to 11.0 acknowledge the switch-over without being asked, later ones do not.
const NEW_CASES: readonly NewCase[] = [
  { machine: "pc-q35-11.0", from: "11.1", to: "11.1", switchoverAck: true },
  { machine: "pc-q35-11.1", from: "11.1", to: "11.1", switchoverAck: true },
  { machine: "pc-i440fx-11.1", from: "11.1", to: "11.1", switchoverAck: false },
  { machine: "pc-q35-9.2", from: "11.1", to: "10.0", switchoverAck: true },
  { machine: "pc-q35-9.2", from: "10.0", to: "11.1", switchoverAck: true },
  { machine: "pc-i440fx-7.2", from: "7.2", to: "11.1", switchoverAck: false },
];

for (const [index, { machine, from, to, switchoverAck }] of NEW_CASES.entries()) {
  const ack = switchoverAck ? { switchoverAck } : {};
  const options: InteropCase = {
    machine,
    cpu: CPU,
    transport: index % 2 === 0 ? "unix" : "tcp",
    rounds: from === "7.2" ? OLD_ROUNDS : 1,
    from: { version: from, channels: 2, compression: METHODS[index % 3]!, ...ack },
    to: { version: to, channels: 3, compression: METHODS[(index + 2) % 3]!, ...ack },
  };
  const name = `${nameOf(options)}${switchoverAck ? ", switchover-ack" : ""}`;
  const needs = [from, to];
  qemuTest(
    `ages: record and restore: ${name}`,
    () => expectRecordAndRestore(options),
    undefined,
    needs,
  );
  qemuTest(`ages: relay: ${name}`, () => expectRelay(options), undefined, needs);
}

// Since QEMU 10.2 the stream of a source with x-colo looks like any other one. Only when it has been
// told that all is in place it shows, by not going away, and its guest stands still until then.
const COLO_SIDE = { version: "11.1", channels: 2, compression: "none" } as const;
const COLO_LIMITS = { stallMs: 3000 };

qemuTest(
  "ages: record() refuses a source that goes on to checkpoints, and lets its guest run again",
  async () => {
    await using guest = await GuestTest.create({ machine: "pc-q35-11.1" });
    await using source = await guest.startSource(COLO_SIDE);
    await source.setCapabilities({ "x-colo": true });
    await using recorder = await record({
      endpoint: "127.0.0.1:0",
      channels: COLO_SIDE.channels,
      timeouts: COLO_LIMITS,
      output: guest.path("vm.rec"),
    });
    await source.migrate(uriOf(recorder.endpoint));
    const error = await recorder.complete().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(StreamError);
    expect(error).toMatchObject({ code: "ERR_MULTIFD_STREAM_COLO" });
    expect(String(error)).toContain("x-colo");
    // It has all of the guest, and says so.
    expect(String(error)).toContain(`the recording ${guest.path("vm.rec")} is complete`);
    using file = await Recording.open(guest.path("vm.rec"));
    expect(file.metadata.machine).toBe("pc-q35-11.1");
    await source.waitStatus("running");
    await source.execute("x-colo-lost-heartbeat");
    const before = (await source.serialOutput()).length;
    await source.waitSerial(new RegExp(`^[^]{${before + 18},}`), 30_000);
  },
  undefined,
  ["11.1"],
);

qemuTest(
  "ages: relay() tells of a source that goes on to checkpoints when its guest is elsewhere",
  async () => {
    await using guest = await GuestTest.create({ machine: "pc-q35-11.1" });
    await using source = await guest.startSource(COLO_SIDE);
    await source.setCapabilities({ "x-colo": true });
    await using target = await guest.startTarget({ ...COLO_SIDE, compression: "zstd" });
    const uri = await target.migrateIncoming("tcp:127.0.0.1:0");
    await using relaying = await relay({
      timeouts: COLO_LIMITS,
      listen: { endpoint: "127.0.0.1:0", channels: 2, compression: "none" },
      connect: { endpoint: endpointOf(uri), channels: 2, compression: "zstd" },
    });
    await source.migrate(uriOf(relaying.endpoint));
    await expect(relaying.complete()).rejects.toMatchObject({ code: "ERR_MULTIFD_STREAM_COLO" });
    await target.waitMigration(30_000);
    expect(await source.status()).toBe("finish-migrate");
  },
  undefined,
  ["11.1"],
);
