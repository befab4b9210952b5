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
import { parseArgs } from "node:util";
import { qemuAvailable } from "../test/qemu/qemu.ts";
import {
  COMPRESSION_METHODS,
  ENGINE_NAMES,
  type CompressionMethod,
  type EngineName,
} from "../mod.ts";
import { COMPARABLE_METHODS, type Contender, type TransferRun } from "./contender.ts";
import { cacheFolder, imageName } from "./guest_image.ts";
import { readGuestMeta } from "./guest_meta.ts";
import { machineDescription, waitIdle, warmGib, warmMemory } from "./idle_machine.ts";
import { imageFacts, type ImageFacts } from "./image_facts.ts";
import { naiveTransfer } from "./naive_transfer.ts";
import { oursTransfer } from "./ours_transfer.ts";
import { qemuMigration } from "./qemu_migration.ts";
import { transferToQemu } from "./to_qemu_transfer.ts";
import { compare, summarize, table, type Ratio, type Summary } from "./report.ts";

const NAMES = ["ours", "to-qemu", "qemu", "naive"] as const;
type Name = (typeof NAMES)[number];

const USAGE = `Usage: bun bench/transfer.ts [options]
  --image FILE          raw RAM (default: the one bench/guest_image.ts made)
  --snapshot FILE       mapped-ram migration file of the same guest, for QEMU (default: FILE.snap)
  --meta FILE           how that guest was booted (default: FILE.json)
  --compression METHOD  ${COMPRESSION_METHODS.join(", ")} (default: zstd)
  --level N             of zlib and zstd (default: 1)
  --engine NAME         library for it here, of ${ENGINE_NAMES.join(", ")} (default: the fastest)
  --channels N          (default: 2)
  --runs N              counted runs of each (default: 5)
  --extra N             at most this many further rounds in place of disturbed runs (default: 4)
  --against LIST        of ${NAMES.join(",")} (default: all that are possible here);
                        to-qemu sends from here to a QEMU
  --warm-gib N          memory touched before each run (default: four times the image)
  --json                print one JSON object as the last line of stdout`;

interface Settings {
  readonly image: string;
  readonly snapshot: string;
  readonly meta: string;
  readonly compression: CompressionMethod;
  readonly engine: EngineName | undefined;
  readonly level: number;
  readonly channels: number;
  readonly runs: number;
  readonly extra: number;
  readonly names: readonly Name[];
  readonly warmGib: number | undefined;
  readonly json: boolean;
}

/** Wrong arguments: told with the usage, exit 2. */
class UsageError extends Error {}

function readSettings(args: string[]): Settings {
  const { values } = parseArgs({
    args,
    options: {
      image: { type: "string" },
      snapshot: { type: "string" },
      meta: { type: "string" },
      compression: { type: "string", default: "zstd" },
      level: { type: "string", default: "1" },
      engine: { type: "string" },
      channels: { type: "string", default: "2" },
      runs: { type: "string", default: "5" },
      extra: { type: "string", default: "4" },
      against: { type: "string", default: NAMES.join(",") },
      "warm-gib": { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const image = values.image ?? join(cacheFolder(), `${imageName(1024)}.ram`);
  const beside = image.replace(/\.ram$/, "");
  const number = (name: "level" | "channels" | "runs" | "extra" | "warm-gib", least: number) => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= least) return value;
    throw new UsageError(`Cannot use --${name} ${values[name]}: must be an integer from ${least}`);
  };
  return {
    image,
    snapshot: values.snapshot ?? `${beside}.snap`,
    meta: values.meta ?? `${beside}.json`,
    compression: oneOf(COMPRESSION_METHODS, values.compression, "compression"),
    level: number("level", 0),
    engine: values.engine === undefined ? undefined : oneOf(ENGINE_NAMES, values.engine, "engine"),
    channels: number("channels", 1),
    runs: number("runs", 1),
    extra: number("extra", 0),
    names: values.against.split(",").map((name) => oneOf(NAMES, name, "against")),
    warmGib: values["warm-gib"] === undefined ? undefined : number("warm-gib", 0),
    json: values.json,
  };
}

function oneOf<T extends string>(allowed: readonly T[], value: string, option: string): T {
  const found = allowed.find((name) => name === value);
  if (found !== undefined) return found;
  throw new UsageError(`Cannot use --${option} ${value}: must be one of ${allowed.join(", ")}`);
}

/** The contenders that can run here; what is missing is said once. */
async function contenders(settings: Settings): Promise<Map<Name, Contender>> {
  const found = new Map<Name, Contender>();
  const { names, compression, snapshot } = settings;
  const isComparable = COMPARABLE_METHODS.includes(compression);
  for (const name of names) {
    if (name === "ours") found.set(name, oursTransfer);
    else if (!isComparable) console.error(`${name} left out: it has no ${compression}`);
    else if (name === "naive") found.set(name, naiveTransfer);
    else {
      const missing =
        qemuAvailable() ?? ((await Bun.file(snapshot).exists()) ? null : `no ${snapshot}`);
      if (missing === null) found.set(name, await withQemu(name, settings));
      else console.error(`${name} left out: ${missing}`);
    }
  }
  return found;
}

async function withQemu(name: "qemu" | "to-qemu", settings: Settings): Promise<Contender> {
  const { snapshot } = settings;
  const meta = await readGuestMeta(settings.meta);
  const contend = name === "qemu" ? qemuMigration : transferToQemu;
  return async (options) => contend({ ...options, meta, snapshot, method: options.compression });
}

/** Runs all contenders in turn, each round from another first one, until there are enough runs. */
async function runRounds(
  settings: Settings,
  facts: ImageFacts,
  field: ReadonlyMap<Name, Contender>,
): Promise<Map<Name, TransferRun[]>> {
  const runs = new Map<Name, TransferRun[]>([...field.keys()].map((name) => [name, []]));
  const { image, compression, level, engine, channels } = settings;
  const options = { image, imageBytes: facts.bytes, compression, level, engine, channels };
  const warm = settings.warmGib ?? warmGib(facts.bytes);
  for (const [name, contend] of field) {
    const { sha256 } = await contend({ ...options, verify: true });
    if (sha256 === facts.sha256) continue;
    throw new Error(
      `Cannot compare ${name}: its copy has SHA-256 ${sha256}, must be ${facts.sha256}`,
    );
  }
  const enough = (): boolean =>
    [...runs.values()].every(
      (list) => list.filter((run) => !run.disturbance.noisy).length >= settings.runs,
    );
  for (let round = 0; round < settings.runs + settings.extra && !enough(); round++) {
    const order = [...field];
    order.push(...order.splice(0, round % order.length));
    for (const [name, contend] of order) {
      const idle = await waitIdle();
      await warmMemory(warm);
      const run = await contend({ ...options, verify: false });
      runs.get(name)?.push(run);
      const marks = [run.disturbance.noisy ? "disturbed" : "", idle ? "" : "machine was busy"];
      const note = marks.filter((mark) => mark !== "").join(", ");
      console.error(`round ${round + 1}: ${name} ${run.seconds.toFixed(3)} s ${note}`);
    }
  }
  return runs;
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
  const summaries = new Map<Name, Summary>();
  for (const [name, list] of runs) summaries.set(name, summarize(list, settings.runs, facts.bytes));

  const zeroPercent = ((facts.zeroPages * 4096) / facts.bytes) * 100;
  const { compression, level, engine, channels } = settings;
  console.log(machineDescription());
  console.log(
    `${compression}${compression === "none" ? "" : ` level ${level}`}${engine === undefined ? "" : ` by ${engine}`}, ${channels} channels, ` +
      `${(facts.bytes / 2 ** 20).toFixed(0)} MiB, ${zeroPercent.toFixed(0)} % of the pages zero`,
  );
  console.log(table(summaries));
  const ours = summaries.get("ours");
  const ratios: Partial<Record<Name, Ratio>> = {};
  for (const [name, summary] of summaries) {
    if (ours === undefined || name === "ours") continue;
    const ratio = compare(ours, summary);
    ratios[name] = ratio;
    const words = `${ratio.ratio.toFixed(2)}, with set-up ${ratio.withSetUp.toFixed(2)}`;
    console.log(`ratio of medians ours/${name}: ${words}`);
  }
  const [toQemu, qemu] = [summaries.get("to-qemu"), summaries.get("qemu")];
  if (toQemu !== undefined && qemu !== undefined) {
    const { ratio } = compare(toQemu, qemu);
    console.log(`ratio of medians to-qemu/qemu: ${ratio.toFixed(2)}`);
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

try {
  await main(readSettings(process.argv.slice(2)));
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const misused = error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS");
  console.error(misused ? `${message}\n${USAGE}` : message);
  process.exit(misused ? 2 : 1);
}
