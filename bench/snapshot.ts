/**
 * Saves a guest to a mapped-ram file and restores it, by this library and by QEMU in turn, and shows
 * what dd gets out of the same disk: with and without the page cache, by the same channels.
 *
 *     bun bench/snapshot.ts --image guest.snap --channels 4 --runs 5 --folder /var/tmp
 *
 * A buffered save ends when the kernel has everything; how long the device takes after that is given
 * apart. Before a restore or a read by dd the file is taken out of the page cache.
 *
 * @module
 */

import { open, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { openSnapshot } from "../mod.ts";
import { TemporaryFolder } from "../test/kit/temporary_folder.ts";
import { qemuAvailable } from "../test/qemu/qemu.ts";
import { BenchProcess, type SideReport } from "./bench_process.ts";
import { dropFile, readByDd, syncFile, writeByDd } from "./disk_file.ts";
import type { SnapshotRun } from "./contender.ts";
import { cacheFolder, imageName, readGuestMeta, type GuestMeta } from "./guest_image.ts";
import { machineDescription, warmGib } from "./idle_machine.ts";
import { restoreByQemu, saveByQemu } from "./qemu_contender.ts";
import type { SnapshotSide } from "./ours_snapshot.ts";
import { draw, sumUp } from "./report.ts";
import { takeTurns } from "./rounds.ts";
import { choices, count, json, optional, runBenchmark, text, type Values } from "./settings.ts";

const MODES = ["buffered", "direct"] as const;
type Mode = (typeof MODES)[number];
const GIB = 2 ** 30;
const MIB = 2 ** 20;

const SETTINGS = {
  image: text(join(cacheFolder(), `${imageName(1024)}.snap`), "mapped-ram file of a guest"),
  meta: optional(
    text("", "how that guest was booted (default: IMAGE.json); without it QEMU is left out"),
  ),
  folder: text("/var/tmp", "disk to measure; three times the image must fit", "DIR"),
  channels: count(4, "", 1),
  modes: choices(MODES, MODES, ""),
  runs: count(5, "", 1),
  warmGib: optional(count(0, "memory touched before each run (default: four times the image)")),
  idleSeconds: count(60, "how long to wait for an idle machine before each run"),
  json,
};

type Settings = Values<typeof SETTINGS>;

/** What is measured, in the order of a round. */
const STEPS = ["ours save", "ours restore", "qemu save", "qemu restore", "dd write", "dd read"];

/** Medians of one step. */
type SnapshotSummary = ReturnType<typeof summarizeSnapshots>;

function summarizeSnapshots(all: readonly SnapshotRun[]) {
  return sumUp(all, all.length, {
    seconds: ({ seconds }) => seconds,
    /** The same with set-up and sync. */
    wholeSeconds: (run) => run.seconds + run.setUpSeconds + (run.syncSeconds ?? 0),
    cpuSeconds: ({ cpuSeconds }) => cpuSeconds,
    extraBytes: ({ extraBytes }) => extraBytes,
  });
}

class SnapshotBench {
  readonly #settings: Settings;
  readonly #meta: GuestMeta | undefined;
  readonly #folder: string;
  readonly #packed: string;

  /**
   * @param folder Emptied by the caller afterwards.
   * @param packed As many bytes as a snapshot has pages, for dd.
   */
  constructor(settings: Settings, meta: GuestMeta | undefined, folder: string, packed: string) {
    this.#settings = settings;
    this.#meta = meta;
    this.#folder = folder;
    this.#packed = packed;
  }

  /** The runs of one mode, by step. */
  async run(mode: Mode): Promise<Map<string, SnapshotRun[]>> {
    const { image, runs, idleSeconds } = this.#settings;
    const steps = STEPS.filter((step) => this.#meta !== undefined || !step.startsWith("qemu"));
    const { size } = await stat(image);
    return takeTurns(
      new Map(steps.map((step) => [step, () => this.#step(step, mode === "direct")])),
      {
        runs,
        uncounted: 1, // makes the files that others read, and warms what can be warmed
        rotate: false,
        warmGib: () => this.#settings.warmGib ?? warmGib(size),
        idleSeconds,
        title: `${mode} `,
      },
    );
  }

  async #step(step: string, direct: boolean): Promise<SnapshotRun> {
    const { image, channels } = this.#settings;
    const [who = "", what = ""] = step.split(" ");
    const file = join(this.#folder, `${who}.snap`);
    const saves = what === "save" || what === "write";
    if (saves) await rm(file, { force: true });
    else await dropFile(file);
    let run: SnapshotRun;
    const how = { image, file, channels, directIo: direct };
    if (who === "ours") run = await this.#ours({ ...how, mode: saves ? "save" : "restore" });
    else if (who === "dd") run = await this.#dd(what, file, direct);
    else {
      const options = { ...how, meta: this.#meta! };
      run = what === "save" ? await saveByQemu(options) : await restoreByQemu(options);
    }
    return saves && who !== "dd" ? { ...run, syncSeconds: await syncFile(file) } : run;
  }

  async #ours(side: SnapshotSide): Promise<SnapshotRun> {
    await using child = new BenchProcess(["ours_snapshot.ts", side]);
    const watch = await child.begin();
    const report = await child.next<SideReport>();
    const { noisy } = watch(report.cpuSeconds);
    if (side.mode === "restore") {
      const { verified } = await child.next<{ verified: boolean }>();
      if (!verified) throw new Error(`Cannot accept restore of ${side.file}: memory differs`);
    }
    return {
      seconds: report.seconds ?? 0,
      setUpSeconds: report.setUpSeconds ?? 0,
      cpuSeconds: report.cpuSeconds,
      extraBytes: report.memory.extraBytes,
      noisy,
    };
  }

  async #dd(what: string, file: string, direct: boolean): Promise<SnapshotRun> {
    const rest = { setUpSeconds: 0, cpuSeconds: 0, extraBytes: 0, noisy: false };
    if (what === "read") return { ...rest, seconds: await readByDd(file, direct) };
    return { ...rest, ...(await writeByDd(this.#packed, file, direct)) };
  }
}

/** Writes the present pages of a snapshot one after the other to a file. */
async function packPages(image: string, path: string): Promise<number> {
  using file = await openSnapshot(image);
  await using output = await open(path, "w");
  let bytes = 0;
  for (const { idstr, present, pageSize } of file.blocks) {
    for (const { start, end } of present.runs()) {
      const content = new Uint8Array((end - start) * pageSize);
      file.readRange(idstr, start * pageSize, content);
      bytes += (await output.write(content)).bytesWritten;
    }
  }
  // O_DIRECT takes whole pieces only.
  const whole = Math.ceil(bytes / MIB) * MIB;
  await output.truncate(whole);
  return whole;
}

function printTable(summaries: ReadonlyMap<string, SnapshotSummary>, bytes: number): void {
  const rows = [["", "MiB/s", "min", "max", "whole s", "CPU s", "extra MiB", "runs"]];
  for (const [step, { seconds, wholeSeconds, cpuSeconds, extraBytes, ...rest }] of summaries) {
    const rate = (value: number): string => (bytes / MIB / value).toFixed(0);
    rows.push([
      step,
      rate(seconds.median),
      rate(seconds.max),
      rate(seconds.min),
      wholeSeconds.median.toFixed(3),
      cpuSeconds.median.toFixed(2),
      (extraBytes.max / MIB).toFixed(0),
      `${rest.runs}${rest.noisyRuns > 0 ? ` (${rest.noisyRuns} disturbed)` : ""}`,
    ]);
  }
  console.log(draw(rows));
}

/** Speed of ours over another's, by medians: above 1 is faster. */
function ratiosOf(summaries: ReadonlyMap<string, SnapshotSummary>): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const [ours, other] of [
    ["ours save", "qemu save"],
    ["ours restore", "qemu restore"],
    ["ours save", "dd write"],
    ["ours restore", "dd read"],
  ] as const) {
    const [left, right] = [summaries.get(ours), summaries.get(other)];
    if (left === undefined || right === undefined) continue;
    ratios[`${ours} / ${other}`] = right.seconds.median / left.seconds.median;
    ratios[`${ours} / ${other}, whole`] = right.wholeSeconds.median / left.wholeSeconds.median;
  }
  return ratios;
}

async function main(settings: Settings): Promise<void> {
  const path = settings.meta ?? settings.image.replace(/\.snap$/, ".json");
  const missing = qemuAvailable() ?? ((await Bun.file(path).exists()) ? null : `no ${path}`);
  if (missing !== null) console.error(`QEMU left out: ${missing}`);
  const meta = missing === null ? await readGuestMeta(path) : undefined;
  using folder = new TemporaryFolder(settings.folder);
  using packedFolder = new TemporaryFolder("/dev/shm");
  const packed = packedFolder.file("pages");
  const bytes = await packPages(settings.image, packed);
  const bench = new SnapshotBench(settings, meta, folder.path, packed);
  console.log(machineDescription());
  console.log(`${(bytes / GIB).toFixed(2)} GiB of pages, ${settings.channels} channels`);
  const results: Record<string, object> = {};
  for (const mode of settings.modes) {
    const summaries = new Map(
      [...(await bench.run(mode))].map(([step, runs]) => [step, summarizeSnapshots(runs)]),
    );
    const ratios = ratiosOf(summaries);
    console.log(`\n${mode}`);
    printTable(summaries, bytes);
    for (const [name, ratio] of Object.entries(ratios)) {
      console.log(`${name}: ${ratio.toFixed(2)}`);
    }
    results[mode] = { steps: Object.fromEntries(summaries), ratios };
  }
  if (!settings.json) return;
  const { image, channels, runs } = settings;
  const machine = machineDescription();
  console.log(JSON.stringify({ machine, image, bytes, channels, runs, modes: results }));
}

await runBenchmark("snapshot", SETTINGS, main);
