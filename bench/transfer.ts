/**
 * Compares this library with QEMU's own multifd and with the naive script, on the same image, run by
 * run in turn: a small rented machine changes speed by a factor of two within hours, so that only
 * figures of one such session can be set beside each other.
 *
 *     bun bench/transfer.ts --image guest.ram --compression zstd --channels 4 --runs 5
 *
 * Everything that is not the transfer is kept off the clock: both RAMs are resident, the machine is
 * idle and its memory warm, and the first transfer of each contender, not counted, is only there to
 * be verified.
 *
 * @module
 */

import { join } from "node:path";
import { qemuAvailable } from "../test/qemu/qemu.ts";
import { COMPRESSION_METHODS, ENGINE_NAMES } from "../mod.ts";
import { COMPARABLE_METHODS, type Contender, type TransferRun } from "./contender.ts";
import { cacheFolder, imageName, readGuestMeta } from "./guest_image.ts";
import { machineDescription, warmGib } from "./idle_machine.ts";
import { imageFacts, type ImageFacts } from "./image_facts.ts";
import { naiveTransfer } from "./naive_transfer.ts";
import { oursTransfer, transferToQemu } from "./ours_transfer.ts";
import { qemuMigration } from "./qemu_contender.ts";
import { compare, summarize, table, type Ratio, type Summary } from "./report.ts";
import { takeTurns } from "./rounds.ts";
import {
  choice,
  choices,
  count,
  json,
  optional,
  runBenchmark,
  text,
  type Values,
} from "./settings.ts";

const NAMES = ["ours", "to-qemu", "qemu", "naive"] as const;
type Name = (typeof NAMES)[number];

const SETTINGS = {
  image: text(join(cacheFolder(), `${imageName(1024)}.ram`), "raw RAM"),
  snapshot: optional(
    text("", "mapped-ram migration file of the same guest, for QEMU (default: FILE.snap)"),
  ),
  meta: optional(text("", "how that guest was booted (default: FILE.json)")),
  compression: choice(COMPRESSION_METHODS, "zstd", COMPRESSION_METHODS.join(", ")),
  level: count(1, "of zlib and zstd"),
  engine: optional(
    choice(
      ENGINE_NAMES,
      "libz",
      `library for it here, of ${ENGINE_NAMES.join(", ")} (default: the fastest)`,
      "NAME",
    ),
  ),
  channels: count(2, "", 1),
  runs: count(5, "counted runs of each", 1),
  extra: count(4, "at most this many further rounds in place of disturbed runs"),
  against: choices(
    NAMES,
    NAMES,
    "to-qemu sends from here to a QEMU; what is impossible is left out",
  ),
  warmGib: optional(count(0, "memory touched before each run (default: four times the image)")),
  json,
};

type Settings = Values<typeof SETTINGS>;

/** What lies beside an image unless the settings say otherwise. */
function beside({ image }: Settings, end: string): string {
  return image.replace(/\.ram$/, "") + end;
}

/** The contenders that can run here; what is missing is said once. */
async function contenders(settings: Settings): Promise<Map<Name, Contender>> {
  const found = new Map<Name, Contender>();
  const { against, compression } = settings;
  const snapshot = settings.snapshot ?? beside(settings, ".snap");
  const isComparable = COMPARABLE_METHODS.includes(compression);
  for (const name of against) {
    if (name === "ours") found.set(name, oursTransfer);
    else if (!isComparable) console.error(`${name} left out: it has no ${compression}`);
    else if (name === "naive") found.set(name, naiveTransfer);
    else {
      const missing =
        qemuAvailable() ?? ((await Bun.file(snapshot).exists()) ? null : `no ${snapshot}`);
      if (missing === null) found.set(name, await withQemu(name, settings, snapshot));
      else console.error(`${name} left out: ${missing}`);
    }
  }
  return found;
}

async function withQemu(
  name: "qemu" | "to-qemu",
  settings: Settings,
  snapshot: string,
): Promise<Contender> {
  const meta = await readGuestMeta(settings.meta ?? beside(settings, ".json"));
  const contend = name === "qemu" ? qemuMigration : transferToQemu;
  return async (options) => contend({ ...options, meta, snapshot });
}

/** Verifies each contender once and lets them take turns. */
async function runRounds(
  settings: Settings,
  facts: ImageFacts,
  field: ReadonlyMap<Name, Contender>,
): Promise<Map<string, TransferRun[]>> {
  const { image, compression, level, engine, channels } = settings;
  const options = { image, imageBytes: facts.bytes, compression, level, engine, channels };
  for (const [name, contend] of field) {
    const { sha256 } = await contend({ ...options, verify: true });
    if (sha256 === facts.sha256) continue;
    throw new Error(
      `Cannot compare ${name}: its copy has SHA-256 ${sha256}, must be ${facts.sha256}`,
    );
  }
  const warm = settings.warmGib ?? warmGib(facts.bytes);
  return takeTurns(
    new Map(
      [...field].map(([name, contend]) => [name, () => contend({ ...options, verify: false })]),
    ),
    { ...settings, warmGib: () => warm },
  );
}

async function main(settings: Settings): Promise<void> {
  if (!(await Bun.file(settings.image).exists())) {
    throw new Error(
      `Cannot read ${settings.image}: no such file; bun bench/guest_image.ts makes one`,
    );
  }
  const facts = await imageFacts(settings.image);
  const field = await contenders(settings);
  const runs = await runRounds(settings, facts, field);
  const summaries = new Map<string, Summary>();
  for (const [name, list] of runs) summaries.set(name, summarize(list, settings.runs, facts.bytes));

  const zeroPercent = ((facts.zeroPages * 4096) / facts.bytes) * 100;
  const { compression, level, engine, channels } = settings;
  console.log(machineDescription());
  console.log(
    `${compression}${compression === "none" ? "" : ` level ${level}`}${engine === undefined ? "" : ` by ${engine}`}, ${channels} channels, ` +
      `${(facts.bytes / 2 ** 20).toFixed(0)} MiB, ${zeroPercent.toFixed(0)} % of the pages zero`,
  );
  console.log(table(summaries, "qemu"));
  const ours = summaries.get("ours");
  const ratios: Record<string, Ratio> = {};
  for (const [name, summary] of summaries) {
    if (ours === undefined || name === "ours") continue;
    const ratio = compare(ours, summary);
    ratios[name] = ratio;
    const words = `${ratio.ratio.toFixed(2)}, with set-up ${ratio.withSetUp.toFixed(2)}`;
    console.log(`ratio of medians ours/${name}: ${words}`);
  }
  if (!settings.json) return;
  const { image, runs: runsWanted } = settings;
  console.log(
    JSON.stringify({
      machine: machineDescription(),
      image: { path: image, ...facts },
      compression,
      level,
      engine,
      channels,
      runs: runsWanted,
      contenders: Object.fromEntries(summaries),
      ratios,
    }),
  );
}

await runBenchmark("transfer", SETTINGS, main);
