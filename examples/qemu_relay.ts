/**
 * Passes a QEMU guest on to another QEMU while it migrates, re-encoding it on the way. `--help` has
 * the options.
 *
 *     bun examples/qemu_relay.ts --listen 127.0.0.1:4444 --channels 4 --compression none \
 *       --connect 127.0.0.1:5555 --to-channels 8 --to-compression zstd
 *
 * @module
 */
import type { Relay } from "../mod.ts";
import {
  byteCount,
  channelCount,
  compression,
  endpoint,
  fromArguments,
  pageSize,
  parseProgramArguments,
  sessionOptions,
} from "./arguments.ts";
import { library } from "./library.ts";
import { runProgram } from "./program.ts";
import { ProgressBar } from "./progress.ts";
import { SOURCE_OPTIONS, SOURCE_USAGE, sourceOptions } from "./qemu_arguments.ts";
import { printFailure, printListening, summaryLines } from "./summary.ts";
import { TLS_OPTIONS, TLS_USAGE, tlsOptions } from "./tls_arguments.ts";

const USAGE = `\
Usage: bun examples/qemu_relay.ts --listen ENDPOINT --connect ENDPOINT [options]

Stands between two QEMUs: the source migrates to this program, which migrates to the destination at
the same time, with other channels and another compression if wanted. Its memory depends on the
channels, not on the guest. Ends with status 0 when the destination has confirmed that the guest is
in place. If anything fails on either side, both QEMUs see a failed migration, the source's guest
goes on there, and this program ends with status 1 and one line on stderr. Wrong arguments end with
status 2.

  --listen ENDPOINT        where the source connects to: host:port, [v6]:port or unix:/path
  --connect ENDPOINT       where the destination waits
  --channels N|auto        multifd channels of the source (default 2); auto: whatever connects
  --compression METHOD     of the source (default none)
  --to-channels N          multifd channels of the destination (default 2)
  --to-compression METHOD  of the destination (default none)
  --to-level N             compression level towards the destination (default 1)
  --uuid UUID              of the destination (default: the source's)
  --max-bandwidth BYTES    per second towards the destination, with K, M, G for powers of 1024
  --page-size BYTES        of the guest: 4K, 8K, 16K or 64K (default 4K)
  --accept-timeout SECS    for the source's first connection (default 600)
${TLS_USAGE}
  --to-tls-…               the same options with this beginning: for the connections to the
                           destination, while those without it are for the source's
${SOURCE_USAGE}
  --connect-timeout SECS   for one connection, and from the first to the last one (default 10)
  --idle-timeout SECS      without any data (default 300)
  --stall-timeout SECS     without a byte in the middle of a packet (default 30)
  --json                   last line of stdout: one JSON object with the statistics of both sides
  -h, --help               this text

Both QEMUs need capability multifd on and their own multifd-channels and multifd-compression, and the
source return-path, without which it is refused while its guest still runs: it would hear of no
failure. Capability switchover-ack works through the relay and is recommended.`;

function relayArguments() {
  const values = parseProgramArguments({
    ...SOURCE_OPTIONS,
    listen: { type: "string" },
    connect: { type: "string" },
    channels: { type: "string" },
    compression: { type: "string" },
    "to-channels": { type: "string" },
    "to-compression": { type: "string" },
    "to-level": { type: "string" },
    uuid: { type: "string" },
    "max-bandwidth": { type: "string", default: "0" },
    "page-size": { type: "string" },
    "accept-timeout": { type: "string" },
    "connect-timeout": { type: "string" },
    "idle-timeout": { type: "string" },
    "stall-timeout": { type: "string" },
    ...TLS_OPTIONS,
    "to-tls-creds": { type: "string" },
    "to-tls-psk-code": { type: "string" },
    "to-tls-username": { type: "string" },
    "to-tls-hostname": { type: "string" },
    "to-tls-verify-peer": { type: "string" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", short: "h" },
  });
  const {
    channels,
    compression: method,
    uuid,
    timeouts,
    tls,
  } = sessionOptions(values, values["accept-timeout"]);
  return {
    json: values.json,
    options: {
      listen: { endpoint: endpoint("--listen", values.listen), channels, compression: method, tls },
      connect: {
        endpoint: endpoint("--connect", values.connect),
        channels: channelCount(values["to-channels"]),
        compression: compression(values["to-compression"], values["to-level"]),
        tls: tlsOptions({
          "tls-creds": values["to-tls-creds"],
          "tls-psk-code": values["to-tls-psk-code"],
          "tls-username": values["to-tls-username"],
          "tls-hostname": values["to-tls-hostname"],
          "tls-verify-peer": values["to-tls-verify-peer"],
        }),
      },
      uuid,
      pageSize: pageSize(values["page-size"]),
      ...sourceOptions(values),
      maxBandwidth: byteCount("--max-bandwidth", values["max-bandwidth"]),
      timeouts,
    },
  };
}

async function relayGuest(signal: AbortSignal): Promise<void> {
  const { json, options } = relayArguments();
  let relaying: Relay | undefined;
  try {
    relaying = await fromArguments(library().relay({ ...options, signal }));
    await using listening = relaying;
    printListening(json, listening.endpoint);
    using progress = new ProgressBar("relaying", () => listening.statistics().incoming);
    const { incoming, outgoing } = await listening.complete();
    progress.complete();
    progress[Symbol.dispose]();
    if (json) return console.log(JSON.stringify({ ok: true, role: "relay", incoming, outgoing }));
    for (const [name, statistics] of Object.entries({ incoming, outgoing })) {
      console.log([name, ...summaryLines(statistics).map((line) => `  ${line}`)].join("\n"));
    }
  } catch (error) {
    if (json) printFailure({ role: "relay", ...relaying?.statistics() }, error);
    throw error;
  }
}

await runProgram(USAGE, relayGuest);
