/**
 * Keeps two kinds of noise out of a measurement on a small rented machine: other work on the same
 * cores, and cold memory. The host takes back pages a guest has freed, and the first touch of such
 * a page then costs a fault in the host: 9.5 s for 4 GiB cold against 0.25 s warm.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

const TICKS_PER_SECOND = 100; // USER_HZ, as in cpu_time.ts
const BUSY_CORES_MAX = 0.06; // what an idle machine of this kind shows: timers, the shell, sshd
const IDLE_WINDOW_MS = 400;
const IDLE_TIMEOUT_MS = 60_000;
const WARM_TIMEOUT_MS = 120_000;
const TOUCH_BYTES = 4096;
const GIB = 2 ** 30;

// A run counts as disturbed from these on: 10 ms ticks make smaller figures meaningless.
const OTHER_CPU_SECONDS_MIN = 0.04;
const OTHER_CPU_SHARE = 0.06;
const STEAL_SECONDS_MIN = 0.02;
const STEAL_SHARE = 0.15;

/** CPU time of the whole machine since it started. */
interface MachineTime {
  /** Of all cores, without idling and without steal. */
  readonly busySeconds: number;
  /** What the host gave to others while this machine wanted to run. */
  readonly stealSeconds: number;
}

function machineTime(): MachineTime {
  const line = readFileSync("/proc/stat", "latin1").split("\n", 1)[0] ?? "";
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line
    .split(/\s+/)
    .slice(1)
    .map((ticks) => Number(ticks) / TICKS_PER_SECOND);
  return { busySeconds: user + nice + system + irq + softirq, stealSeconds: steal };
}

/**
 * Waits until all cores together are busy with less than 6 % of one over 0.4 s.
 *
 * @returns Whether that came within `timeoutMs`; a measurement may go on if not, and will be marked.
 */
export async function waitIdle(timeoutMs: number = IDLE_TIMEOUT_MS): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline) {
    const before = machineTime().busySeconds;
    await Bun.sleep(IDLE_WINDOW_MS);
    const busyCores = (machineTime().busySeconds - before) / (IDLE_WINDOW_MS / 1000);
    if (busyCores <= BUSY_CORES_MAX) return true;
  }
  return false;
}

/**
 * Touches `gib` GiB of fresh memory and frees it at once, after which the host backs those pages
 * for a few seconds. In a process of its own, because only an exit surely gives memory back.
 *
 * @throws {Error} If it does not end in time or the memory is not there.
 */
export async function warmMemory(gib: number): Promise<void> {
  if (gib <= 0) return;
  const child = Bun.spawn([process.execPath, import.meta.path, String(gib)], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "inherit",
    timeout: WARM_TIMEOUT_MS,
  });
  const code = await child.exited;
  if (code !== 0) throw new Error(`Cannot warm ${gib} GiB: exited with ${code}, must be 0`);
}

/** GiB that can be warmed beside a transfer of `imageBytes`: both its sides, within what is free. */
export function warmGib(imageBytes: number): number {
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(
    readFileSync("/proc/meminfo", "latin1"),
  )?.[1];
  const free = (Number(available ?? 0) * 1024) / GIB;
  return Math.floor(Math.min(4 * (imageBytes / GIB), free / 2) * 4) / 4;
}

/** What else the machine did while something was measured. */
export interface Disturbance {
  /** CPU seconds of all that was not measured. */
  readonly otherCpuSeconds: number;
  readonly stealSeconds: number;
  /** Whether that is too much for the measurement to count. */
  readonly noisy: boolean;
}

/**
 * Starts watching the machine.
 *
 * @returns A function that ends the watch; it takes the CPU seconds the measured processes used.
 */
export function watchMachine(): (ownCpuSeconds: number) => Disturbance {
  const before = machineTime();
  const startMs = performance.now();
  return (ownCpuSeconds) => {
    const after = machineTime();
    const seconds = (performance.now() - startMs) / 1000;
    const busySeconds = after.busySeconds - before.busySeconds;
    const otherCpuSeconds = Math.max(0, busySeconds - ownCpuSeconds);
    const stealSeconds = after.stealSeconds - before.stealSeconds;
    const noisy =
      otherCpuSeconds > Math.max(OTHER_CPU_SECONDS_MIN, OTHER_CPU_SHARE * seconds) ||
      stealSeconds > STEAL_SECONDS_MIN + STEAL_SHARE * seconds;
    return { otherCpuSeconds, stealSeconds, noisy };
  };
}

/** The machine a figure was measured on, in a line. */
export function machineDescription(): string {
  const cpu = /^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "latin1"))?.[1];
  const kernel = readFileSync("/proc/sys/kernel/osrelease", "latin1").trim();
  return `${availableParallelism()} cores of ${cpu ?? "unknown CPU"}, Linux ${kernel}, Bun ${Bun.version}`;
}

/** What {@link warmMemory} runs in its own process. */
function touch(gib: number): void {
  const blocks: Uint8Array[] = []; // all held until the end, or the same pages would be touched again
  for (let left = gib * GIB; left > 0; left -= GIB) {
    const block = new Uint8Array(Math.min(left, GIB));
    for (let at = 0; at < block.length; at += TOUCH_BYTES) block[at] = 1;
    blocks.push(block);
  }
}

if (import.meta.main) touch(Number(process.argv[2]));
