/**
 * Works on mapped-ram files, the snapshots that QEMU writes with `migrate file:PATH`. `--help` lists
 * the commands.
 *
 *     bun examples/snapshot.ts info guest.snap
 *     bun examples/snapshot.ts convert guest.snap --to compressed --output guest.snap.zst
 *
 * @module
 */
import { HelpRequest, UsageError } from "./arguments.ts";
import { runProgram } from "./program.ts";
import { applyCommand } from "./snapshot/apply.ts";
import type { CommandResult, SnapshotCommand } from "./snapshot/command.ts";
import { convertCommand } from "./snapshot/convert.ts";
import { diffCommand } from "./snapshot/diff.ts";
import { extractCommand } from "./snapshot/extract.ts";
import { infoCommand } from "./snapshot/info.ts";
import { verifyCommand } from "./snapshot/verify.ts";
import { printFailure } from "./summary.ts";

const COMMANDS: Readonly<Record<string, SnapshotCommand>> = {
  info: infoCommand,
  verify: verifyCommand,
  extract: extractCommand,
  diff: diffCommand,
  apply: applyCommand,
  convert: convertCommand,
};

const USAGE = `\
Usage: bun examples/snapshot.ts COMMAND [arguments]

Works on mapped-ram files, QEMU's snapshots in which every page has a fixed place, plain or
compressed. A start offset is part of a file's name, as in QEMU: guest.snap,offset=1M; what virsh save
writes in front of a stream is found without. Failures end with status 1 and one line on stderr, wrong
arguments with status 2.

${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`)
  .join("\n")}

COMMAND --help tells more.`;

const [name = "", ...args] = process.argv.slice(2);
const command = COMMANDS[name];

await runProgram(command?.usage ?? USAGE, async (signal) => {
  if (command === undefined) {
    if (["", "-h", "--help"].includes(name)) throw new HelpRequest();
    throw new UsageError(`Cannot run ${name}: must be one of ${Object.keys(COMMANDS).join(", ")}`);
  }
  let result: CommandResult;
  try {
    result = await command.run(args, signal);
  } catch (error) {
    const usage = error instanceof UsageError || error instanceof HelpRequest;
    if (args.includes("--json") && !usage) printFailure({ command: name }, error);
    throw error;
  }
  const { json, facts, lines, failed = false } = result;
  if (json) console.log(JSON.stringify({ ok: !failed, command: name, ...facts }));
  else for (const line of lines) console.log(line);
  if (failed) throw new Error(`Cannot confirm ${name}: the memory differs`);
});
