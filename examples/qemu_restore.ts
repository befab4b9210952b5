/**
 * Restores a recorded guest into a QEMU that waits for an incoming migration. `--help` has the
 * options.
 *
 *     bun examples/qemu_restore.ts --input vm.rec --connect 127.0.0.1:5555 --channels 2 \
 *       --compression zlib
 *
 * @module
 */
import { describeError, restore, type InstantRestorer, type Restorer } from "../mod.ts";
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
  UsageError,
} from "./arguments.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import { MIGRATION_OPTIONS, MIGRATION_USAGE, switchoverAck, syncMode } from "./qemu_arguments.ts";
import { printEvent, printFailure, printSummary } from "./summary.ts";
import { formatBytes, formatSeconds } from "./units.ts";

const PAGE_BYTES = 4096; // for the bar, to which only shares matter

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
  --instant                the guest runs at once, and its memory follows it: see below

With --instant the input may be a snapshot as well, plain or compressed, and QEMU has capability
postcopy-ram on instead of multifd. Pages come when the guest touches them, all others behind them,
--max-bandwidth is for those. Of the options above, those about channels, compression and the stream do
not go with it.

  --preempt                QEMU has capability postcopy-preempt on
  --huge-pages ID=BYTES    memory of that block is made of such pages at the destination; repeatable
  --order FILE             send first what this file says that the guest will ask for
  --learn FILE             keep the order in which it asks, for the next time
  --recover                QEMU has lost its source while the guest ran (postcopy-paused), and waits at
                           --connect for it to go on (migrate-recover)

The uuid is the recorded one unless --uuid is given; QEMU compares it with its own (-uuid). In the
monitor of the waiting QEMU:

  migrate_set_capability multifd on
  migrate_set_parameter multifd-channels 2
  migrate_set_parameter multifd-compression zlib
  migrate_incoming tcp:127.0.0.1:5555`;

const INSTANT_OPTIONS = {
  instant: { type: "boolean" },
  preempt: { type: "boolean" },
  "huge-pages": { type: "string", multiple: true },
  order: { type: "string" },
  learn: { type: "string" },
  recover: { type: "boolean" },
} as const;

/** What has no meaning with `--instant`. */
const MEANINGLESS = [
  "channels",
  "compression",
  "level",
  "engine",
  "sync-mode",
  "zero-page-detection",
  "no-return-path",
  "switchover-ack",
  "switchover-ack-legacy",
];

function restoreArguments() {
  const values = parseProgramArguments({
    ...TRANSFER_OPTIONS,
    ...INSTANT_OPTIONS,
    ...MIGRATION_OPTIONS,
    "sync-mode": { type: "string" },
    input: { type: "string" },
    connect: { type: "string" },
    "zero-page-detection": { type: "string" },
    "max-bandwidth": { type: "string", default: "0" },
    "no-return-path": { type: "boolean" },
  });
  if (values.instant === true)
    return { json: values.json ?? false, instant: instantOptions(values) };
  const stray = Object.keys(INSTANT_OPTIONS).find((name) => Object.hasOwn(values, name));
  if (stray !== undefined) throw new UsageError(`Cannot use --${stray}: needs --instant`);
  return {
    json: values.json ?? false,
    options: {
      ...sessionOptions(values),
      input: required("--input", values.input),
      endpoint: endpoint("--connect", values.connect),
      zeroPageDetection: oneOf(
        "--zero-page-detection",
        values["zero-page-detection"] ?? "multifd",
        ["multifd", "legacy", "none"],
      ),
      maxBandwidth: byteCount("--max-bandwidth", values["max-bandwidth"]),
      returnPath: !values["no-return-path"],
      syncMode: syncMode(values["sync-mode"]),
      switchoverAck: switchoverAck(values),
    } as const,
  };
}

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

/** Options of `--instant`; those that have no meaning with it are refused. */
function instantOptions(values: Values) {
  const text = (name: string): string | undefined => {
    const value = values[name];
    return typeof value === "string" ? value : undefined;
  };
  const meaningless = MEANINGLESS.find((name) => values[name] !== undefined);
  if (meaningless !== undefined) {
    throw new UsageError(`Cannot use --${meaningless} with --instant: its pages go another way`);
  }
  const { uuid, timeouts, tls } = sessionOptions(values);
  const huge = (values["huge-pages"] ?? []) as readonly string[];
  return {
    instant: true,
    input: required("--input", text("input")),
    endpoint: endpoint("--connect", text("connect")),
    uuid,
    timeouts,
    tls,
    maxBandwidth: byteCount("--max-bandwidth", text("max-bandwidth") ?? "0"),
    preempt: values["preempt"] === true,
    hostPages: Object.fromEntries(
      huge.map((pair) => {
        const at = pair.lastIndexOf("=");
        if (at < 1) throw new UsageError(`Cannot use --huge-pages ${pair}: must be ID=BYTES`);
        return [pair.slice(0, at), byteCount("--huge-pages", pair.slice(at + 1))];
      }),
    ),
    order: text("order"),
    learn: text("learn"),
    resume: values["recover"] === true,
    onNotice: (notice: string) => console.error(`note: ${notice}`),
  } as const;
}

async function restoreInstantly(
  json: boolean,
  options: ReturnType<typeof instantOptions>,
  signal: AbortSignal,
): Promise<void> {
  let restorer: InstantRestorer | undefined;
  try {
    restorer = await fromArguments(restore({ ...options, signal }));
    await using connected = restorer;
    using bar = new ProgressBar("restoring", () => {
      const { heldPages, leftPages, wireBytes } = connected.progress();
      const pageBytes = (heldPages - leftPages) * PAGE_BYTES;
      return { ramBytes: heldPages * PAGE_BYTES, pageBytes, wireBytes, zeroPages: 0, channels: [] };
    });
    await connected.running();
    const { runningMs = 0 } = connected.progress();
    if (json) printEvent({ running: true, runningMs });
    else console.log(`running    after ${formatSeconds(runningMs / 1000)}`);
    const progress = await connected.complete();
    bar.complete();
    bar[Symbol.dispose]();
    if (json) {
      const facts = {
        role: "restorer",
        machine: connected.machine,
        instant: true,
        confirmed: true,
      };
      console.log(JSON.stringify({ ok: true, ...facts, ...progress }));
    } else console.log([`guest      ${connected.machine}`, ...instantLines(progress)].join("\n"));
  } catch (error) {
    if (json) {
      const progress = restorer?.progress();
      const { code } = error as { readonly code?: string };
      const parts = { code, text: describeError(error) };
      console.log(JSON.stringify({ ok: false, role: "restorer", error: parts, ...progress }));
    }
    throw error;
  }
}

function instantLines(progress: ReturnType<InstantRestorer["progress"]>): string[] {
  const { elapsedMs, requests, requestedPages, sentPages, wireBytes, latencyMs } = progress;
  const { median, p99 } = latencyMs ?? { median: 0, p99: 0 };
  return [
    `memory     all in place after ${formatSeconds(elapsedMs / 1000)}, ${formatBytes(wireBytes)} on the wire`,
    `pages      ${sentPages} sent, ${requestedPages} of them on demand in ${requests} requests`,
    ...(latencyMs === undefined
      ? []
      : [
          `answered   in ${(median * 1000).toFixed(0)} µs (median), ${(p99 * 1000).toFixed(0)} µs (99 %)`,
        ]),
  ];
}

async function restoreGuest(signal: AbortSignal): Promise<void> {
  const { json, options, instant } = restoreArguments();
  if (instant !== undefined) return restoreInstantly(json, instant, signal);
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
