/**
 * This library as a contender: `ours_sender.ts` and `ours_receiver.ts`, a process each.
 *
 * @module
 */

import { transferBetween } from "./bench_process.ts";
import type { TransferOptions, TransferRun } from "./contender.ts";

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
