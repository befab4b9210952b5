/**
 * How soon a guest runs that is restored with its memory behind it, beside QEMU's own restore of the same
 * file; how long what it asks for takes; and how soon all memory is in place beside a plain restore.
 *
 *     bun bench/instant.ts --sizes 1024,8192 --runs 5
 *
 * The guest is the one of the tests: it writes to its pages one after the other, most of its memory is
 * zero. Runs take turns. With `--image`, one that `bench/guest_image.ts` made: a Linux, whose next three
 * lines on the serial port are waited for, over a thin line, without and with the order of the first run.
 *
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openGuest, openSnapshot, restore, writeRecording, type InstantProgress } from "../mod.ts";
import { Qemu, type QemuOptions } from "../test/qemu/qemu.ts";
import { assembleTinyGuest } from "../test/qemu/tiny_guest.ts";
import { draw, spread } from "./report.ts";
import { readGuestMeta } from "./guest_image.ts";
import { count, counts, json, optional, runBenchmark, text, type Values } from "./settings.ts";

const MIB = 1 << 20;
const LIMIT_MS = 60_000;
const CHANNELS = 4;

const SETTINGS = {
  sizes: counts([1024, 8192], "memory of the guests in MiB", 128, 3 << 20),
  content: count(400, "MiB of it that are not zero", 32),
  runs: count(5, "runs of each", 1),
  image: optional(text("", "snapshot of a Linux guest of bench/guest_image.ts")),
  bandwidth: count(8, "MiB/s for what the Linux guest does not ask for", 1),
  json,
};

/** Milliseconds of each run, by what was measured. */
type Times = Map<string, number[]>;

function note(times: Times, name: string, ms: number): void {
  times.set(name, [...(times.get(name) ?? []), ms]);
}

/** Saves a guest in a snapshot and in a recording. */
async function saveGuest(folder: string, machine: QemuOptions): Promise<void> {
  await using vm = await Qemu.start({ ...machine, name: "source" });
  await vm.setCapabilities({ "mapped-ram": true, multifd: true });
  await vm.waitSerial(/00000001\n/, LIMIT_MS);
  // Not stopped before: QEMU's own restore would keep it so.
  await vm.setParameters({ "downtime-limit": LIMIT_MS, "max-bandwidth": 2 ** 40 });
  await vm.migrate(`file:${join(folder, "snapshot")}`);
  await vm.waitMigration(LIMIT_MS);
  using snapshot = await openSnapshot(join(folder, "snapshot"));
  const loaded = await snapshot.load();
  const content = { ...loaded, state: snapshot.guestState(), compression: "none" };
  await writeRecording(join(folder, "recording"), content);
}

/** A machine that waits, and what is restored into it. */
async function startTarget(machine: QemuOptions, capabilities: Record<string, boolean>) {
  const vm = await Qemu.start({ ...machine, name: "target", incoming: "defer" });
  await vm.setCapabilities(capabilities);
  await vm.setParameters({ "multifd-channels": CHANNELS });
  return vm;
}

/** QEMU's own restore: from the command to its word that the guest runs. */
async function byQemu(folder: string, machine: QemuOptions): Promise<number> {
  await using vm = await startTarget(machine, { "mapped-ram": true, multifd: true });
  const start = performance.now();
  const resumed = vm.qmp.waitEvent("RESUME", LIMIT_MS);
  await vm.migrateIncoming(`file:${join(folder, "snapshot")}`);
  return (await resumed).atMs - start;
}

/** Everything sent before the guest runs: from connecting to the confirmation. */
async function plainly(folder: string, machine: QemuOptions): Promise<number> {
  await using vm = await startTarget({ ...machine, paused: true }, { multifd: true });
  const uri = await vm.migrateIncoming("tcp:127.0.0.1:0");
  const endpoint = uri.replace("tcp:", "");
  const input = join(folder, "recording");
  await using restorer = await restore({ input, endpoint, channels: CHANNELS });
  const { elapsedMs } = await restorer.complete();
  return elapsedMs;
}

/** The guest runs at once; its memory as fast as possible, or slowly so that it has to ask. */
async function instantly(
  folder: string,
  machine: QemuOptions,
  options: { readonly maxBandwidth?: number; readonly paused?: boolean },
  times: Times,
): Promise<InstantProgress> {
  const { maxBandwidth = 0, paused = false } = options;
  await using vm = await startTarget({ ...machine, paused }, { "postcopy-ram": true });
  const uri = await vm.migrateIncoming("tcp:127.0.0.1:0");
  using input = await openGuest(join(folder, "snapshot"));
  const endpoint = uri.replace("tcp:", "");
  const start = performance.now();
  const resumed = paused ? undefined : vm.qmp.waitEvent("RESUME", LIMIT_MS);
  await using restorer = await restore({ instant: true, input, endpoint, maxBandwidth });
  await restorer.running();
  if (resumed !== undefined)
    note(times, "from the call to QEMU's word", (await resumed).atMs - start);
  return await restorer.complete();
}

async function measure(mib: number, settings: Values<typeof SETTINGS>) {
  const folder = await mkdtemp(join(tmpdir(), "multifd-instant-"));
  const textBytes = settings.content * MIB;
  await using guest = await assembleTinyGuest({
    textBytes,
    counterEnd: 16 * MIB + textBytes,
    roundPauseMs: 20,
  });
  const machine = { name: "", memoryMib: mib, bios: guest.path, machine: "pc" };
  const times: Times = new Map();
  let asking: InstantProgress | undefined;
  try {
    await saveGuest(folder, machine);
    for (let run = 0; run < settings.runs; run++) {
      note(times, "running by QEMU's own restore", await byQemu(folder, machine));
      const quick = await instantly(folder, machine, { paused: true }, times);
      note(times, "running, from the connection", quick.runningMs ?? NaN);
      note(times, "all in place behind it", quick.elapsedMs - (quick.runningMs ?? 0));
      note(times, "all in place by a plain restore", await plainly(folder, machine));
      asking = await instantly(folder, machine, { maxBandwidth: 64 * MIB }, times);
      note(times, "running while it asks", asking.runningMs ?? NaN);
      note(times, "answer, median", asking.latencyMs?.median ?? NaN);
      note(times, "answer, 99 %", asking.latencyMs?.p99 ?? NaN);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { mib, times, asking };
}

/** What a Linux asks for until it has printed three lines, and how long they take. */
async function measureLinux(image: string, bandwidth: number): Promise<void> {
  const {
    machine,
    mib,
    boot_args: extraArgs,
  } = await readGuestMeta(image.replace(/\.snap$/, ".json"));
  const folder = await mkdtemp(join(tmpdir(), "multifd-instant-"));
  const order = join(folder, "order");
  const rows: string[][] = [["", "running, ms", "3 lines, ms", "requests", "pages sent"]];
  try {
    for (const [name, options] of [
      ["first run, learning", { learn: order }],
      ["without the order", { maxBandwidth: bandwidth * MIB }],
      ["with the order", { maxBandwidth: bandwidth * MIB, order }],
    ] as const) {
      await using vm = await startTarget(
        { name: "", machine, memoryMib: mib, extraArgs },
        { "postcopy-ram": true },
      );
      const uri = await vm.migrateIncoming("tcp:127.0.0.1:0");
      const endpoint = uri.replace("tcp:", "");
      await using restorer = await restore({ instant: true, input: image, endpoint, ...options });
      await vm.waitSerial(/(TICK \d+\s+){3}/, LIMIT_MS);
      const { elapsedMs, runningMs = 0, requests, sentPages } = restorer.progress();
      const cells = [runningMs, elapsedMs, requests, sentPages];
      rows.push([name, ...cells.map((cell) => cell.toFixed(0))]);
      if ("learn" in options) await restorer.complete();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log(draw(rows));
}

await runBenchmark("instant", SETTINGS, async (settings) => {
  const results = [];
  for (const mib of settings.sizes) {
    const { times, asking } = await measure(mib, settings);
    console.log(`guest of ${mib} MiB, milliseconds`);
    const rows = [...times].map(([name, values]) => {
      const { median, min, max } = spread(values);
      return [name, ...[median, min, max].map((value) => value.toFixed(3))];
    });
    console.log(draw([["", "median", "least", "most"], ...rows]));
    const { requests = 0, latencies = [] } = asking ?? {};
    console.log(`answers of the last run, ${requests}:`);
    for (const { upToMs, requests: some } of latencies) {
      const bar = "#".repeat(Math.ceil((60 * some) / requests));
      console.log(
        `${`${(upToMs * 1000).toFixed(0)} µs`.padStart(10)} ${String(some).padStart(6)} ${bar}`,
      );
    }
    results.push({ mib, times: Object.fromEntries(times), latencies });
  }
  if (settings.image !== undefined) await measureLinux(settings.image, settings.bandwidth);
  if (settings.json) console.log(JSON.stringify({ results }));
});
