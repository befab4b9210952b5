/**
 * Sends memory images to a receiver over N parallel channels. `--help` has the options.
 *
 *     bun examples/sender.ts --connect 127.0.0.1:4444 --channels 4 --compression zstd \
 *       --block pc.ram=image.ram
 *
 * @module
 */
import type { ConnectOptions, RamBlock, Sender } from "../mod.ts";
import {
  blockArguments,
  byteCount,
  endpoint,
  fromArguments,
  oneOf,
  pageSize,
  parseProgramArguments,
  seconds,
  sessionOptions,
  TRANSFER_OPTIONS,
  TRANSFER_USAGE,
  wholeNumber,
} from "./arguments.ts";
import { library } from "./library.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import { printFailure, printSummary } from "./summary.ts";

const USAGE = `\
Usage: bun examples/sender.ts --connect ENDPOINT --block IDSTR=FILE [options]

Sends memory images to a receiver and ends with status 0 once the receiver has confirmed that all of
it is in place. Failures end with status 1 and one line on stderr, wrong arguments with status 2.

  --connect ENDPOINT       host:port, [v6]:port or unix:/path
  --block IDSTR=FILE       a RAM block and the file with its memory; may repeat
${TRANSFER_USAGE}
  --page-size BYTES        4K, 8K, 16K or 64K, equal on both sides (default 4K)
  --zero-page-detection W  multifd: by the channels (default); legacy: by the main thread; none
  --max-bandwidth BYTES    per second over all connections, with K, M, G for powers of 1024 (default 0,
                           no limit)
  --rounds N               send everything, then N - 1 times what has changed since (default 1); the
                           files are mapped then, so that other processes may go on writing to them,
                           and must keep their length
  --round-delay SECS       pause before each further round (default 0)
  --verify                 send digests at the end, for the receiver to compare`;

interface SenderArguments {
  readonly json: boolean;
  readonly blocks: readonly { readonly idstr: string; readonly path: string }[];
  readonly pageSize: number;
  readonly rounds: number;
  readonly roundDelayMs: number;
  readonly options: Omit<ConnectOptions, "blocks" | "signal">;
}

function senderArguments(): SenderArguments {
  const values = parseProgramArguments({
    ...TRANSFER_OPTIONS,
    connect: { type: "string" },
    block: { type: "string", multiple: true },
    "page-size": { type: "string" },
    "zero-page-detection": { type: "string", default: "multifd" },
    "max-bandwidth": { type: "string", default: "0" },
    rounds: { type: "string", default: "1" },
    "round-delay": { type: "string" },
    verify: { type: "boolean", default: false },
  });
  const delay = values["round-delay"];
  return {
    json: values.json ?? false,
    blocks: blockArguments(values.block),
    pageSize: pageSize(values["page-size"]),
    rounds: wholeNumber("--rounds", values.rounds, 1),
    roundDelayMs: delay === undefined ? 0 : seconds("--round-delay", delay) * 1000,
    options: {
      ...sessionOptions(values),
      endpoint: endpoint("--connect", values.connect),
      zeroPageDetection: oneOf("--zero-page-detection", values["zero-page-detection"], [
        "multifd",
        "legacy",
        "none",
      ]),
      maxBandwidth: byteCount("--max-bandwidth", values["max-bandwidth"]),
      verify: values.verify,
    },
  };
}

async function send(signal: AbortSignal): Promise<void> {
  const { json, pageSize: pageBytes, rounds, roundDelayMs, options, ...images } = senderArguments();
  const { connect, RamBlock } = library();
  let sender: Sender | undefined;
  try {
    using blocks = new DisposableStack();
    const loaded: RamBlock[] = [];
    for (const { idstr, path } of images.blocks) {
      // A copy cannot change under several rounds, and one round need not look at the file for long.
      const block =
        rounds > 1
          ? RamBlock.map(idstr, path, { pageSize: pageBytes })
          : await RamBlock.fromFile(idstr, path, { pageSize: pageBytes, signal });
      loaded.push(blocks.use(block));
    }
    sender = await fromArguments(connect({ ...options, blocks: loaded, signal }));
    await using connected = sender;
    using progress = new ProgressBar("sending", () => connected.statistics());
    const startMs = performance.now();
    await connected.send({ rounds, roundDelayMs });
    // All pages are on their way; the rest of the time is the receiver's, which may have a disk.
    const sendMs = performance.now() - startMs;
    const statistics = await connected.complete();
    progress.complete();
    progress[Symbol.dispose]();
    printSummary(json, { role: "sender", verified: options.verify ?? false, sendMs }, statistics);
  } catch (error) {
    if (json) printFailure({ role: "sender" }, error, sender?.statistics());
    throw error;
  }
}

await runProgram(USAGE, send);
