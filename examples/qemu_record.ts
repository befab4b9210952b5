/**
 * Records a QEMU guest into a file: QEMU migrates to this program. `--help` has the options.
 *
 *     bun examples/qemu_record.ts --listen 127.0.0.1:4444 --channels 4 --compression zstd \
 *       --output vm.rec
 *
 * @module
 */
import type { Recorder } from "../mod.ts";
import {
  fromArguments,
  parseProgramArguments,
  RECEIVING_OPTIONS,
  receivingOptions,
  required,
  TRANSFER_USAGE,
} from "./arguments.ts";
import { library } from "./library.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import {
  checkOutputFile,
  MIGRATION_OPTIONS,
  MIGRATION_USAGE,
  SOURCE_OPTIONS,
  SOURCE_USAGE,
  sourceOptions,
  switchoverAck,
} from "./qemu_arguments.ts";
import { printFailure, printListening, printSummary } from "./summary.ts";

const USAGE = `\
Usage: bun examples/qemu_record.ts --listen ENDPOINT --output FILE [options]

Takes the place of the destination of a QEMU migration and stores the guest, so that it can be
restored any number of times. Ends with status 0 when the recording is complete and on disk; a QEMU
with capability return-path is told so, and keeps its guest if anything fails. One without it is
refused while its guest still runs. Failures end with status 1 and one line on stderr, wrong
arguments with status 2.

  --listen ENDPOINT        host:port, [v6]:port or unix:/path; port 0 takes any free one
  --output FILE            appears, or replaces an older one, when the recording is complete
${TRANSFER_USAGE}
${MIGRATION_USAGE}
  --page-size BYTES        of the guest: 4K, 8K, 16K or 64K (default 4K)
  --accept-timeout SECS    for the first connection of a sender (default 600)
${SOURCE_USAGE}
  --ram-max BYTES          largest guest, with K, M, G for powers of 1024 (default 64G); its RAM is
                           held in memory

Without --uuid the guest may have any. In QEMU's monitor, before the migration:

  migrate_set_capability multifd on
  migrate_set_capability return-path on
  migrate_set_parameter multifd-channels 4
  migrate_set_parameter multifd-compression zstd
  migrate -d tcp:127.0.0.1:4444`;

function recordArguments() {
  const values = parseProgramArguments({
    ...RECEIVING_OPTIONS,
    ...MIGRATION_OPTIONS,
    ...SOURCE_OPTIONS,
  });
  const { uuid, ...session } = receivingOptions(values);
  return {
    json: values.json ?? false,
    options: {
      ...session,
      ...sourceOptions(values),
      // Left out, it stays whatever the guest has.
      ...(uuid === undefined ? {} : { uuid }),
      output: required("--output", values.output),
      switchoverAck: switchoverAck(values),
    } as const,
  };
}

async function recordGuest(signal: AbortSignal): Promise<void> {
  const { json, options } = recordArguments();
  let recorder: Recorder | undefined;
  try {
    await checkOutputFile("--output", options.output);
    recorder = await fromArguments(library().record({ ...options, signal }));
    await using listening = recorder;
    printListening(json, listening.endpoint);
    using progress = new ProgressBar("recording", () => listening.statistics());
    const { machine, uuid, blocks, devices } = await listening.complete();
    progress.complete();
    progress[Symbol.dispose]();
    const guest = { machine, uuid, blocks, deviceBytes: devices.bytes, file: options.output };
    if (!json) console.log(`guest      ${machine}, uuid ${uuid}, ${blocks.length} RAM blocks`);
    printSummary(json, { role: "recorder", ...guest }, listening.statistics());
  } catch (error) {
    if (json) printFailure({ role: "recorder" }, error, recorder?.statistics());
    throw error;
  }
}

await runProgram(USAGE, recordGuest);
