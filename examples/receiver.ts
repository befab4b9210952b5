/**
 * Receives memory images over N parallel channels and writes them to files. `--help` has the options.
 *
 *     bun examples/receiver.ts --listen 127.0.0.1:4444 --channels 4 --compression zstd \
 *       --output copy.ram
 *
 * @module
 */
import type { ListenOptions, RamBlock, Receiver } from "../mod.ts";
import {
  fromArguments,
  parseProgramArguments,
  RECEIVING_OPTIONS,
  receivingOptions,
  required,
  TRANSFER_USAGE,
} from "./arguments.ts";
import type { OutputPlan } from "./image_output.ts";
import { library } from "./library.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import { printFailure, printListening, printSummary } from "./summary.ts";

const USAGE = `\
Usage: bun examples/receiver.ts --listen ENDPOINT --output PATH [options]

Receives memory images from one sender, writes them to files and confirms. Ends with status 0 when
all of it is on disk and the sender has been told so. Failures end with status 1 and one line on
stderr, wrong arguments with status 2.

  --listen ENDPOINT        host:port, [v6]:port or unix:/path; port 0 takes any free one
  --output PATH            a file for one block, a directory for several; a new directory, and
                           a file, appears when it is complete, and a file replaces an older one
                           then; characters of block names that do not suit file names become %XX
${TRANSFER_USAGE}
  --page-size BYTES        4K, 8K, 16K or 64K, equal on both sides (default 4K)
  --accept-timeout SECS    for the first connection (default 600)
  --ram-max BYTES          most memory a sender may ask for, with K, M, G for powers of 1024
                           (default 64G)
  --verify                 refuse a sender without --verify; digests are compared whenever there
                           are any`;

interface ReceiverArguments {
  readonly json: boolean;
  readonly output: string;
  readonly options: Omit<ListenOptions, "finalize" | "signal">;
}

function receiverArguments(): ReceiverArguments {
  const values = parseProgramArguments({
    ...RECEIVING_OPTIONS,
    verify: { type: "boolean", default: false },
  });
  return {
    json: values.json ?? false,
    output: required("--output", values.output),
    options: { ...receivingOptions(values), verify: values.verify },
  };
}

async function receive(signal: AbortSignal): Promise<void> {
  const { json, output, options } = receiverArguments();
  const { checkOutput, planOutput, writeOutput } = await import("./image_output.ts");
  let receiver: Receiver | undefined;
  // A cancelled session does not wait for its last step, and the program must not end before it.
  let writing: Promise<void> | undefined;
  let files: OutputPlan["files"] = [];
  const finalize = async (blocks: readonly RamBlock[]): Promise<void> => {
    const plan = await planOutput(output, blocks);
    files = plan.files;
    await writeOutput(plan, signal);
  };
  try {
    await checkOutput(output);
    receiver = await fromArguments(
      library().listen({
        ...options,
        finalize: (blocks) => (writing = finalize(blocks)),
        onWarning: ({ message }) => console.error(`warning: ${message}`),
        signal,
      }),
    );
    await using listening = receiver;
    printListening(json, listening.endpoint);

    using progress = new ProgressBar("receiving", () => listening.statistics());
    // Before the data: a transfer whose result has no place need not begin.
    const announced = listening.announced().then(async (blocks) => planOutput(output, blocks));
    await Promise.race([listening.complete(), announced]);
    const statistics = await listening.complete();
    progress.complete();
    progress[Symbol.dispose]();
    const blocks = files.map(({ block, path }) => ({
      idstr: block.idstr,
      bytes: block.bytes,
      file: path,
    }));
    printSummary(json, { role: "receiver", blocks }, statistics);
  } catch (error) {
    await writing?.catch(() => {}); // its failure is the session's, and cleans up after itself
    if (json) printFailure({ role: "receiver" }, error, receiver?.statistics());
    throw error;
  }
}

await runProgram(USAGE, receive);
