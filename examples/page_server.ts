/**
 * Gives virtual machine monitors the memory of a guest page by page, when they touch it. `--help` has
 * the options.
 *
 *     bun examples/page_server.ts --snapshot guest.snap --block pc.ram --socket uffd.sock
 *
 * @module
 */
import {
  openSnapshot,
  Recording,
  servePageFaults,
  type FaultClientEnd,
  type FaultClientFacts,
  type PageFaultServer,
} from "../mod.ts";
import { parseProgramArguments, UsageError } from "./arguments.ts";
import { runProgram } from "./program.ts";
import { isRecording } from "./snapshot/convert.ts";
import { formatBytes } from "./units.ts";

const USAGE = `\
Usage: bun examples/page_server.ts --snapshot FILE --socket PATH [options]

Listens on a Unix socket for processes that speak the protocol of Firecracker's handlers of page faults
(mem_backend: { backend_type: "Uffd", backend_path: PATH }), and brings in their memory when they touch
it. Ends after SIGINT or SIGTERM, or with --once after the first process; a process that lives longer
than this program ends by SIGBUS when it touches a page it has not got. Status 1 and one line on stderr
after a failure, 2 for wrong arguments.

  --snapshot FILE          a snapshot, compressed or not, or a recording
  --socket PATH            where to listen; removed at the end
  --block NAME             block that the regions of processes count in; may repeat: one behind the
                           other (default: all blocks, in the order of the file)
  --fill                   also bring in what nobody has touched yet
  --once                   serve one process and end with it
  --json                   one JSON object on stdout for each thing that happens
  -h, --help               this text`;

await runProgram(USAGE, async (signal) => {
  const values = parseProgramArguments({
    snapshot: { type: "string" },
    socket: { type: "string" },
    block: { type: "string", multiple: true },
    fill: { type: "boolean", default: false },
    once: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  });
  const { snapshot: file, socket: path, block: blocks, fill, once, json } = values;
  if (file === undefined) throw new UsageError("--snapshot FILE is needed");
  if (path === undefined) throw new UsageError("--socket PATH is needed");

  const say = (event: string, client?: FaultClientFacts, why?: string): void => {
    if (json) return console.log(JSON.stringify({ event, ...client, ...(why && { why }) }));
    if (client === undefined) return console.log(`${event} ${path}`);
    const { pid, faults, faultedBytes, bytes } = client;
    const counts = `${faults} faults, ${formatBytes(faultedBytes)} of ${formatBytes(bytes)}`;
    console.log(`process ${pid} ${event}: ${counts}${why === undefined ? "" : `, ${why}`}`);
  };
  using snapshot = isRecording(file) ? await Recording.open(file) : await openSnapshot(file);
  const { promise: first, resolve } = Promise.withResolvers<void>();
  await using server: PageFaultServer = await servePageFaults({
    path,
    snapshot,
    blocks,
    fill,
    signal,
    onConnected: (client) => say("connected", client),
    onLost: (client, reason) => say("lost a page", client, reason),
    onEnded(client, end: FaultClientEnd, reason) {
      say(end, client, reason);
      resolve();
    },
  });
  say("listening");
  await (once ? Promise.race([first, server.ended()]) : server.ended());
});
