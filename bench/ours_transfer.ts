/**
 * This library as a contender: `ours_sender.ts` and `ours_receiver.ts`, a process each.
 *
 * @module
 */

import { COMPRESSION_METHODS, ENGINE_NAMES, type Compression } from "../mod.ts";
import { transferBetween } from "./bench_process.ts";
import type { TransferOptions, TransferRun } from "./contender.ts";

/** Makes one transfer by this library. */
export async function oursTransfer(options: TransferOptions): Promise<TransferRun> {
  const { image, imageBytes, channels, verify } = options;
  const common = [...codecArguments(options), "--channels", String(channels)];
  const block = ["--bytes", String(imageBytes), ...(verify ? ["--verify"] : [])];
  return transferBetween(
    ["ours_receiver.ts", ...block, ...common],
    (endpoint) => ["ours_sender.ts", "--image", image, "--endpoint", endpoint, ...common],
    verify,
  );
}

/** How a side is told the codec; {@link libraryCompression} understands it. */
export function codecArguments({ compression, level, engine }: TransferOptions): string[] {
  const common = ["--compression", compression, "--level", String(level)];
  return engine === undefined ? common : [...common, "--engine", engine];
}

/**
 * What a side's arguments mean to the library, which refuses a level where there is none.
 *
 * @throws {RangeError} If method or engine are unknown.
 */
export function libraryCompression(name: string, level: number, library?: string): Compression {
  const method = known(COMPRESSION_METHODS, name, "compression");
  const engine = library === undefined ? undefined : known(ENGINE_NAMES, library, "engine");
  return method === "zlib" || method === "zstd" ? { method, level, engine } : { method, engine };
}

function known<T extends string>(list: readonly T[], name: string, what: string): T {
  const found = list.find((entry) => entry === name);
  if (found !== undefined) return found;
  throw new RangeError(`Cannot use ${what} ${name}: must be one of ${list.join(", ")}`);
}
