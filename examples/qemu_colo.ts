/**
 * A second copy of a running QEMU guest, checkpoint by checkpoint, written to a file when its host is
 * gone. `--help` has the options.
 *
 *     bun examples/qemu_colo.ts --listen 127.0.0.1:4444 --compression zstd --output vm.rec
 *
 * @module
 */
import type { ColoSecondary } from "../mod.ts";
import {
  fromArguments,
  parseProgramArguments,
  RECEIVING_OPTIONS,
  receivingOptions,
  required,
  TRANSFER_USAGE,
  wholeNumber,
} from "./arguments.ts";
import { library } from "./library.ts";
import { runProgram, throwIfCancelled } from "./program.ts";
import {
  checkOutputFile,
  MIGRATION_OPTIONS,
  MIGRATION_USAGE,
  switchoverAck,
} from "./qemu_arguments.ts";
import { printEvent, printFailure, printListening, printSummary } from "./summary.ts";

const USAGE = `\
Usage: bun examples/qemu_colo.ts --listen ENDPOINT --output FILE [options]

The secondary of a COLO pair whose primary is a QEMU, 11.0 or later: keeps a complete copy of its
guest in memory, brought up to date by checkpoints while the guest runs. When the primary is gone, or
ends the pair, the guest as it was at the last checkpoint is written to a file for qemu_restore.ts.
Ends with status 0 when that is complete and on disk. Failures, no complete copy before the end among
them, end with status 1 and one line on stderr, as do SIGINT and SIGTERM, which write nothing; wrong
arguments with status 2.

A lost connection looks like a lost host: be sure that the guest runs nowhere else before you restore
it. A host that falls silent is noticed after --idle-timeout, which must be longer than the delay
between checkpoints.

  --listen ENDPOINT        host:port, [v6]:port or unix:/path; port 0 takes any free one
  --output FILE            appears, or replaces an older one, when the recording is complete
  --checkpoints N          end the pair after that many checkpoints (default: when the primary does);
                           the primary's guest runs on, x-colo-lost-heartbeat makes it a single one
${TRANSFER_USAGE}
${MIGRATION_USAGE}
  --page-size BYTES        of the guest: 4K, 8K, 16K or 64K (default 4K)
  --accept-timeout SECS    for the first connection (default 600)
  --ram-max BYTES          largest guest, with K, M, G for powers of 1024 (default 64G); its RAM is
                           held in memory twice

Without --uuid the guest may have any. In QEMU's monitor:

  migrate_set_capability return-path on
  migrate_set_capability multifd on
  migrate_set_capability x-colo on
  migrate_set_parameter multifd-channels 2
  migrate_set_parameter multifd-compression zstd
  migrate_set_parameter x-checkpoint-delay 1000
  migrate -d tcp:127.0.0.1:4444`;

function coloArguments() {
  const values = parseProgramArguments({
    ...RECEIVING_OPTIONS,
    ...MIGRATION_OPTIONS,
    checkpoints: { type: "string" },
  });
  const { checkpoints } = values;
  return {
    json: values.json ?? false,
    output: required("--output", values.output),
    checkpoints:
      checkpoints === undefined ? Infinity : wholeNumber("--checkpoints", checkpoints, 1),
    options: {
      ...receivingOptions(values),
      switchoverAck: switchoverAck(values),
      capture: true,
    } as const,
  };
}

/** Tells of every checkpoint, and ends the pair after as many as are wanted. */
function follow(secondary: ColoSecondary, json: boolean, checkpoints: number): void {
  secondary.on("ready", () => {
    if (json) printEvent({ ready: true });
    else console.error("the first copy is complete");
  });
  secondary.on("loaded", (record) => {
    const { epoch, pages, stateBytes, pauseMs } = record;
    if (json) printEvent({ checkpoint: epoch, pages, stateBytes, pauseMs });
    else console.error(`checkpoint ${epoch}: ${pages} pages, ${pauseMs.toFixed(1)} ms still`);
    if (epoch >= checkpoints) void secondary.takeOver();
  });
}

async function keepGuest(signal: AbortSignal): Promise<void> {
  const { json, output, checkpoints, options } = coloArguments();
  let secondary: ColoSecondary | undefined;
  try {
    await checkOutputFile("--output", output);
    secondary = await fromArguments(library().listenSecondary({ ...options, signal }));
    await using listening = secondary;
    follow(listening, json, checkpoints);
    printListening(json, listening.endpoint);
    const { epoch, pending, cause, recording } = await listening.ended();
    throwIfCancelled(signal);
    const { machine, uuid, devices } = await library().writeRecording(output, recording!, signal); // captured
    if (!json) {
      console.log(`guest      ${machine}, uuid ${uuid}, as of checkpoint ${epoch}`);
      if (cause !== undefined) console.log(`ended by   ${cause.message}`);
    }
    const lost = pending === undefined ? null : pending.epoch;
    const facts = { epoch, lost, cause: cause?.code ?? null, machine, uuid };
    const file = { deviceBytes: devices.bytes, file: output };
    printSummary(json, { role: "secondary", ...facts, ...file }, listening.statistics());
  } catch (error) {
    if (json) printFailure({ role: "secondary" }, error, secondary?.statistics());
    throw error;
  }
}

await runProgram(USAGE, keepGuest);
