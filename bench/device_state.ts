/**
 * Compares device state with RAM over the same channels, alone and together, and a switchover over
 * many channels with one over a single one.
 *
 *     bun bench/device_state.ts --channels 4 --devices 4 --size 256M --runs 5
 *
 * `ram`            RAM alone, method none, as much as all devices together
 * `devices`        devices alone, from memory: time from SWITCHOVER_START to the confirmation
 * `together`       RAM and devices, whose state is queued while RAM is sent
 * `one by one`     the same state over one channel, one device after the other on one thread
 * `hardware`       devices that give their state at a rate of their own, all at once
 * `hw one by one`  the same over one channel, one device after the other
 *
 * @module
 */

import { transferBetween } from "./bench_process.ts";
import type { TransferRun } from "./contender.ts";
import type { DeviceSenderSide } from "./device_sender.ts";
import { fillState } from "./device_source.ts";
import { machineDescription, warmGib } from "./idle_machine.ts";
import type { ReceiverSide } from "./ours_receiver.ts";
import { summarize, table, type Summary } from "./report.ts";
import { takeTurns } from "./rounds.ts";
import { count, json, optional, runBenchmark, type Values } from "./settings.ts";

const SETTINGS = {
  channels: count(4, "multifd channels", 1),
  devices: count(4, "", 1),
  size: count(256, "state of each in MiB", 1),
  rate: count(400, "MiB that the hardware of one device gives in a second", 1),
  runs: count(5, "counted runs of each", 1),
  warmGib: optional(count(0, "memory touched before each run (default: four times what is sent)")),
  json,
};

type Settings = Values<typeof SETTINGS>;

const MIB = 1_048_576;
/** A RAM block there has to be; of one page it costs nothing. */
const LEAST_RAM_BYTES = 4096;

interface Scenario {
  readonly name: string;
  readonly ramBytes: number;
  readonly devices: number;
  readonly bytes: number;
  readonly channels: number;
  readonly rate: number;
  /** One device stands for this many, which one thread saves one after the other. */
  readonly serialParts: number;
  readonly beside: boolean;
}

function scenariosOf(settings: Settings): Scenario[] {
  const { channels, devices } = settings;
  const [bytes, rate] = [settings.size * MIB, settings.rate * MIB];
  const state = { ramBytes: LEAST_RAM_BYTES, devices, bytes, channels, rate: 0 };
  const all = devices * bytes;
  const alone = { ...state, serialParts: 0, beside: false };
  const oneByOne = { ...alone, devices: 1, bytes: all, channels: 1, serialParts: devices };
  return [
    { ...alone, name: "ram", ramBytes: all, devices: 0 },
    { ...alone, name: "devices" },
    { ...alone, name: "together", ramBytes: all, beside: true },
    { ...oneByOne, name: "one by one" },
    { ...alone, name: "hardware", rate },
    { ...oneByOne, name: "hw one by one", rate },
  ];
}

function sentBytes({ ramBytes, devices, bytes }: Scenario): number {
  return (ramBytes === LEAST_RAM_BYTES ? 0 : ramBytes) + devices * bytes;
}

async function run(scenario: Scenario, verify: boolean): Promise<TransferRun> {
  const { ramBytes, devices, bytes, channels, rate, serialParts, beside } = scenario;
  const session = { channels };
  const parts = serialParts === 0 ? devices : serialParts;
  const received: ReceiverSide = { ramBytes, devices, deviceBytes: bytes, verify, session };
  const sent = {
    ramBytes,
    devices: parts,
    bytes: (devices * bytes) / (parts || 1),
    rate,
    serial: serialParts > 0,
    beside,
    session,
  };
  return transferBetween(
    ["ours_receiver.ts", received],
    (endpoint) => ["device_sender.ts", { ...sent, endpoint } satisfies DeviceSenderSide],
    verify,
  );
}

/** What the receiver of a scenario must have in the end. */
function digestOf({ ramBytes, devices, bytes, serialParts }: Scenario): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const chunk = 8 * MIB; // as RamBlock.views() gives it, and as the sender fills it
  for (let at = 0; at < ramBytes; at += chunk) {
    const view = new Uint8Array(Math.min(chunk, ramBytes - at));
    fillState(view, 1000);
    hasher.update(view);
  }
  const parts = serialParts === 0 ? devices : serialParts;
  for (let index = 0; index < parts; index++) {
    const view = new Uint8Array((devices * bytes) / parts);
    fillState(view, index);
    hasher.update(view);
  }
  return hasher.digest("hex");
}

async function main(settings: Settings): Promise<void> {
  const scenarios = scenariosOf(settings);
  for (const scenario of scenarios) {
    const { sha256 } = await run(scenario, true);
    if (sha256 === digestOf(scenario)) continue;
    throw new Error(`Cannot measure ${scenario.name}: what arrived is not what was sent`);
  }
  const runs = await takeTurns(
    new Map(scenarios.map((scenario) => [scenario.name, () => run(scenario, false)])),
    {
      runs: settings.runs,
      warmGib: (name) => {
        const scenario = scenarios.find((known) => known.name === name)!;
        return settings.warmGib ?? warmGib(2 * sentBytes(scenario));
      },
    },
  );
  const summaries = new Map<string, Summary>(
    scenarios.map((scenario) => [
      scenario.name,
      summarize(runs.get(scenario.name) ?? [], settings.runs, sentBytes(scenario)),
    ]),
  );
  report(settings, summaries);
}

function report(settings: Settings, summaries: ReadonlyMap<string, Summary>): void {
  const { channels, devices, size, rate } = settings;
  const seconds = (name: string): number => summaries.get(name)?.seconds.median ?? NaN;
  const ratios = {
    // Bars: at least 0.9, at least 0.9, at least 1.8.
    devicesToRam: seconds("ram") / seconds("devices"),
    togetherToSum: (seconds("ram") + seconds("devices")) / seconds("together"),
    oneByOneToAll: seconds("one by one") / seconds("devices"),
    hardwareOneByOneToAll: seconds("hw one by one") / seconds("hardware"),
  };
  console.log(machineDescription());
  console.log(
    `${channels} channels, ${devices} devices of ${size} MiB, hardware at ${rate} MiB/s each`,
  );
  console.log(table(summaries));
  console.log(`throughput of devices / RAM: ${ratios.devicesToRam.toFixed(2)}`);
  console.log(`time of RAM and devices apart / together: ${ratios.togetherToSum.toFixed(2)}`);
  console.log(`switchover over one channel / all: ${ratios.oneByOneToAll.toFixed(2)} from memory`);
  console.log(
    `switchover over one channel / all: ${ratios.hardwareOneByOneToAll.toFixed(2)} from hardware`,
  );
  if (!settings.json) return;
  const contenders = Object.fromEntries(summaries);
  console.log(JSON.stringify({ machine: machineDescription(), ...settings, contenders, ratios }));
}

await runBenchmark("device_state", SETTINGS, main);
