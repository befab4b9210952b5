/**
 * This library as a contender: `ours_sender.ts` and `ours_receiver.ts`, a process each.
 *
 * @module
 */

import type { Compression as LibraryCompression } from "../mod.ts";
import { transferBetween } from "./bench_process.ts";
import { COMPRESSIONS, type TransferOptions, type TransferRun } from "./contender.ts";

/** Makes one transfer by this library. */
export async function oursTransfer(options: TransferOptions): Promise<TransferRun> {
  const { image, imageBytes, compression, level, channels, verify } = options;
  const common = ["--compression", compression, "--level", String(level)];
  common.push("--channels", String(channels));
  const block = ["--bytes", String(imageBytes), ...(verify ? ["--verify"] : [])];
  return transferBetween(
    ["ours_receiver.ts", ...block, ...common],
    (endpoint) => ["ours_sender.ts", "--image", image, "--endpoint", endpoint, ...common],
    verify,
  );
}

/**
 * What a side's arguments mean to the library, which refuses a level where there is none.
 *
 * @throws {RangeError} If the method is unknown.
 */
export function libraryCompression(name: string, level: number): LibraryCompression {
  const method = COMPRESSIONS.find((known) => known === name);
  if (method === undefined) {
    throw new RangeError(
      `Cannot use compression ${name}: must be one of ${COMPRESSIONS.join(", ")}`,
    );
  }
  return method === "none" ? { method } : { method, level };
}
