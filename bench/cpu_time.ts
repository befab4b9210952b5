/**
 * What another process has used so far, read from /proc.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";

const TICKS_PER_SECOND = 100; // USER_HZ, part of Linux's x86-64 ABI

/**
 * CPU seconds, user and system, of a process with all its threads, ended ones included. The
 * resolution is 10 ms, which is all the kernel shows of threads that have ended: QEMU's channels do so before
 * anybody can ask for their own, finer counters.
 *
 * @throws {Error} With `code` ENOENT if the process is gone.
 */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The second field is the command in parentheses and may hold spaces; the rest is plain.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Resident memory of a process, in bytes. */
export interface ResidentMemory {
  /** What is resident now. */
  readonly rssBytes: number;
  /** The most that was ever resident, or since {@link resetPeak}. */
  readonly peakRssBytes: number;
}

/**
 * Reads the resident memory of a process, this one unless told otherwise, shared mappings such as guest RAM included.
 *
 * @throws {Error} With `code` ENOENT if the process is gone.
 */
export function residentMemory(pid = process.pid): ResidentMemory {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return { rssBytes: field(status, "VmRSS"), peakRssBytes: field(status, "VmHWM") };
}

/** Lets the peak of a process, this one unless told otherwise, start again from what is resident now. */
export function resetPeak(pid = process.pid): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5"); // proc(5): 5 resets the peak and nothing else
}

function field(status: string, name: string): number {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1];
  if (kib === undefined) throw new Error(`Cannot read ${name}: not in /proc/<pid>/status`);
  return Number(kib) * 1024;
}
