/**
 * Restores a recorded guest into a QEMU that waits for an incoming migration. `--help` has the
 * options.
 *
 *     bun examples/qemu_restore.ts --input vm.rec --connect 127.0.0.1:5555 --channels 2 \
 *       --compression zlib
 *
 * @module
 */
import { restore, type Restorer } from "../mod.ts";
import {
  byteCount,
  endpoint,
  fromArguments,
  oneOf,
  parseProgramArguments,
  required,
  sessionOptions,
  TRANSFER_OPTIONS,
  TRANSFER_USAGE,
} from "./arguments.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import { MIGRATION_OPTIONS, MIGRATION_USAGE, switchoverAck, syncMode } from "./qemu_arguments.ts";
import { printFailure, printSummary } from "./summary.ts";

const USAGE = `\
Usage: bun examples/qemu_restore.ts --input FILE --connect ENDPOINT [options]

Sends a guest recorded by qemu_record.ts to a QEMU started with -incoming defer and the same machine
type, devices and memory. Channels and compression are those this QEMU is set to, whatever they were
at the recording. Ends with status 0 once QEMU has confirmed that the guest is in place. Failures end
with status 1 and one line on stderr, wrong arguments with status 2.

  --input FILE             the recording
  --connect ENDPOINT       host:port, [v6]:port or unix:/path
${TRANSFER_USAGE}
${MIGRATION_USAGE}
  --zero-page-detection W  multifd: by the channels (default); legacy: by the main thread; none
  --max-bandwidth BYTES    per second over all connections, with K, M, G for powers of 1024 (default 0,
                           no limit)
  --sync-mode MODE         round, section or auto (default): as the recorded source did
  --no-return-path         do not wait for QEMU's confirmation

The uuid is the recorded one unless --uuid is given; QEMU compares it with its own (-uuid). In the
monitor of the waiting QEMU:

  migrate_set_capability multifd on
  migrate_set_parameter multifd-channels 2
  migrate_set_parameter multifd-compression zlib
  migrate_incoming tcp:127.0.0.1:5555`;

function restoreArguments() {
  const values = parseProgramArguments({
    ...TRANSFER_OPTIONS,
    ...MIGRATION_OPTIONS,
    "sync-mode": { type: "string" },
    input: { type: "string" },
    connect: { type: "string" },
    "zero-page-detection": { type: "string", default: "multifd" },
    "max-bandwidth": { type: "string", default: "0" },
    "no-return-path": { type: "boolean", default: false },
  });
  return {
    json: values.json ?? false,
    options: {
      ...sessionOptions(values),
      input: required("--input", values.input),
      endpoint: endpoint("--connect", values.connect),
      zeroPageDetection: oneOf("--zero-page-detection", values["zero-page-detection"], [
        "multifd",
        "legacy",
        "none",
      ]),
      maxBandwidth: byteCount("--max-bandwidth", values["max-bandwidth"]),
      returnPath: !values["no-return-path"],
      syncMode: syncMode(values["sync-mode"]),
      switchoverAck: switchoverAck(values),
    } as const,
  };
}

async function restoreGuest(signal: AbortSignal): Promise<void> {
  const { json, options } = restoreArguments();
  let restorer: Restorer | undefined;
  try {
    restorer = await fromArguments(restore({ ...options, signal }));
    await using connected = restorer;
    using progress = new ProgressBar("restoring", () => connected.statistics());
    const statistics = await connected.complete();
    progress.complete();
    progress[Symbol.dispose]();
    const { machine, uuid, recordedAt } = connected.metadata;
    if (!json) console.log(`guest      ${machine}, uuid ${uuid}, recorded ${recordedAt}`);
    printSummary(
      json,
      { role: "restorer", machine, uuid, recordedAt, confirmed: options.returnPath },
      statistics,
    );
  } catch (error) {
    if (json) printFailure({ role: "restorer" }, error, restorer?.statistics());
    throw error;
  }
}

await runProgram(USAGE, restoreGuest);
