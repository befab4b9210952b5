import { expect, test } from "bun:test";
import { Qemu, QemuMigrationError, takeBreakdowns } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import {
  assembleTinyGuest,
  checkCounters,
  checkSerialGoesOn,
  COUNTER_START,
  PAGE_BYTES,
  serialRounds,
} from "./tiny_guest.ts";

const MIB = 1 << 20;

qemuTest("tiny guest counts its rounds and its pages on pc, q35 and pc-i440fx-8.0", async () => {
  await using guest = await assembleTinyGuest({ roundPauseMs: 5 });
  for (const machine of ["pc", "q35", "pc-i440fx-8.0"]) {
    await using vm = await Qemu.start({ name: machine, machine, memoryMib: 64, bios: guest.path });
    await vm.waitSerial(/00000005\n/, 10_000);
    await vm.stop();
    const rounds = serialRounds(await vm.serialOutput());
    expect(rounds).toEqual(rounds.map((_, index) => index + 1));
    const memory = await vm.readPhysicalMemory(COUNTER_START, 64 * MIB - COUNTER_START);
    const { first } = checkCounters(memory, COUNTER_START, 64 * MIB);
    expect([0, 1]).toContain((first - rounds.length) & 255); // the round under way counts too
  }
});

qemuTest("tiny guest fills memory with noise and words and stays within its range", async () => {
  const end = 40 * MIB;
  await using guest = await assembleTinyGuest({
    counterEnd: end,
    roundPauseMs: 50,
    noiseBytes: 2 * MIB,
    textBytes: 4 * MIB,
  });
  await using vm = await Qemu.start({ name: "vm", memoryMib: 64, bios: guest.path });
  await vm.waitSerial(/00000001\n/, 10_000);
  await vm.stop();
  const memory = await vm.readPhysicalMemory(COUNTER_START, 64 * MIB - COUNTER_START);
  checkCounters(memory, COUNTER_START, end);
  const noise = Bun.zstdCompressSync(memory.slice(0, 2 * MIB)).byteLength;
  const text = Bun.zstdCompressSync(memory.slice(2 * MIB, 6 * MIB)).byteLength;
  expect(noise).toBeGreaterThan(0.99 * 2 * MIB);
  expect(text).toBeLessThan(0.4 * 4 * MIB);
  expect(text).toBeGreaterThan(0.1 * 4 * MIB);
  expect(memory.subarray(end - COUNTER_START).every((byte) => byte === 0)).toBe(true);
});

qemuTest("tiny guest goes on after multifd/tcp/zstd between two QEMUs", async () => {
  await using guest = await assembleTinyGuest({ noiseBytes: 2 * MIB, textBytes: 4 * MIB });
  const machine = { memoryMib: 64, bios: guest.path };
  await using source = await Qemu.start({ ...machine, name: "source" });
  await using target = await Qemu.start({ ...machine, name: "target", incoming: "defer" });
  for (const vm of [source, target]) {
    await vm.setCapabilities({ multifd: true });
    await vm.setParameters({ "multifd-channels": 2, "multifd-compression": "zstd" });
    // A busy machine sends more slowly than the guest writes: no limit that it would have to meet.
    await vm.setParameters({ "downtime-limit": 60_000 });
  }
  await source.waitSerial(/00000002\n/, 10_000);

  await source.migrate(await target.migrateIncoming("tcp:127.0.0.1:0"));
  expect(await Promise.all([source.waitMigration(15_000), target.waitMigration(15_000)])).toEqual([
    "completed",
    "completed",
  ]);
  await source.waitStatus("postmigrate");
  const info = await source.queryMigrate();
  expect(info.ram?.multifdBytes).toBeGreaterThan(2 * MIB); // the noise does not shrink

  const goesOn = await target.waitSerial(/([0-9a-f]{8}\n){3}/, 10_000);
  expect(checkSerialGoesOn(await source.serialOutput(), goesOn)).toBeGreaterThan(2);
  await target.stop();
  const bytes = 64 * MIB - COUNTER_START;
  const before = checkCounters(
    await target.readPhysicalMemory(COUNTER_START, bytes),
    COUNTER_START,
    64 * MIB,
  );
  const rounds = serialRounds(await target.serialOutput()).length;
  await target.cont();
  await target.waitSerial(new RegExp(`([0-9a-f]{8}\\n){${rounds + 2}}`), 10_000);
  await target.stop();
  const after = checkCounters(
    await target.readPhysicalMemory(COUNTER_START, bytes),
    COUNTER_START,
    64 * MIB,
  );
  expect(after).not.toEqual(before);
});

qemuTest("Qemu.start() rejects with what QEMU printed", async () => {
  const start = Qemu.start({ name: "vm", memoryMib: 64, machine: "pdp11" });
  await expect(start).rejects.toThrow(/Cannot start vm: QEMU exited with 1.*pdp11/s);
});

qemuTest("Qemu.waitMigration() rejects with the status and QEMU's reason", async () => {
  await using vm = await Qemu.start({ name: "vm", memoryMib: 64, paused: true });
  await vm.migrate("unix:/nobody/listens/here");
  const failed = await vm.waitMigration(5_000).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(QemuMigrationError);
  expect(failed).toMatchObject({ status: "failed" });
  expect(String(failed)).toMatch(/: Cannot migrate vm: failed, must be completed: .*nobody/s);

  const wait = vm.waitMigration(5_000).catch((error: unknown) => error);
  await vm.kill();
  expect(String(await wait)).toMatch(/QEMU was ended by SIGKILL/);
});

qemuTest("a QEMU that crashes is told apart from one that is killed", async () => {
  for (const [signal, told] of [
    ["SIGABRT", ["vm was ended by SIGABRT"]],
    ["SIGKILL", []],
  ] as const) {
    {
      await using vm = await Qemu.start({ name: "vm", memoryMib: 64, paused: true });
      process.kill(vm.pid, signal);
      await vm.exited;
    }
    expect(takeBreakdowns()).toEqual([...told]);
  }
});

test("checkCounters() accepts one step down and nothing else", () => {
  const memory = (counters: readonly number[]): Uint8Array => {
    const bytes = new Uint8Array(counters.length * PAGE_BYTES);
    counters.forEach((counter, page) => (bytes[page * PAGE_BYTES] = counter));
    return bytes;
  };
  const check = (counters: readonly number[]): unknown =>
    checkCounters(memory(counters), COUNTER_START, COUNTER_START + counters.length * PAGE_BYTES);
  expect(check([7, 7, 7])).toEqual({ first: 7, stepAt: undefined });
  expect(check([7, 6, 6])).toEqual({ first: 7, stepAt: COUNTER_START + PAGE_BYTES });
  expect(check([0, 255])).toEqual({ first: 0, stepAt: COUNTER_START + PAGE_BYTES });
  for (const counters of [
    [7, 8, 8],
    [7, 5, 5],
    [7, 6, 7],
    [7, 6, 5],
    [7, 0, 7],
  ]) {
    expect(() => check(counters)).toThrow(/^Cannot accept page 0x100[12]000: its counter is/);
  }
});
