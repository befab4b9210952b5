/**
 * Says what is in a recording or in a file that QEMU migrated to. `--help` has the options.
 *
 *     bun examples/qemu_analyze.ts vm.rec
 *
 * @module
 */
import { parseArgs } from "node:util";
import type { AnalyzedDevice, Analysis, DeviceField, DeviceSubsection } from "../mod.ts";
import { byteCount, HelpRequest, UsageError } from "./arguments.ts";
import { library } from "./library.ts";
import { runProgram } from "./program.ts";
import { printFailure } from "./summary.ts";
import { formatBytes } from "./units.ts";

const USAGE = `\
Usage: bun examples/qemu_analyze.ts FILE [options]

Lists machine, RAM blocks with their pages, sections and devices of a recording made by
qemu_record.ts, or of a file that QEMU wrote (migrate file:..., with or without mapped-ram). Ends with
status 0, with status 1 and one line on stderr when the file is neither, and with status 2 for wrong
arguments.

  --device NAME            also the fields of this device; may repeat; all: of every device
  --sections               also every section of the stream
  --offset BYTES           where QEMU's stream begins in the file (default 0)
  --json                   one JSON object with everything
  -h, --help               this text`;

function analyzeArguments() {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) throw new HelpRequest();
  try {
    const { values, positionals } = parseArgs({
      args,
      options: {
        device: { type: "string", multiple: true, default: [] },
        sections: { type: "boolean", default: false },
        offset: { type: "string", default: "0" },
        json: { type: "boolean", default: false },
      },
      allowPositionals: true,
    });
    const [file] = positionals;
    if (file === undefined || positionals.length > 1) throw new UsageError("One FILE is needed");
    return { ...values, offset: byteCount("--offset", values.offset), file };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

async function analyzeFile(signal: AbortSignal): Promise<void> {
  const { file, device, sections, offset, json } = analyzeArguments();
  try {
    const analysis = await library().analyze(file, { offset, signal });
    if (json) return console.log(JSON.stringify({ ok: true, file, ...analysis }));
    console.log(overview(analysis, sections).join("\n"));
    const isWanted = ({ name }: AnalyzedDevice): boolean =>
      device.includes("all") || device.includes(name);
    for (const found of analysis.devices.filter(isWanted)) {
      console.log(`\n${found.name} ${found.instanceId}`);
      console.log(fieldLines(found.fields, found.subsections, "  ").join("\n"));
    }
  } catch (error) {
    if (json) printFailure({ file }, error);
    throw error;
  }
}

function overview(analysis: Analysis, withSections: boolean): string[] {
  const { kind, machine, uuid, pageSize, capabilities, blocks, devices, sections } = analysis;
  const { records, recording, fileBytes, hasDescription } = analysis;
  const lines = [
    `file       ${kind}, ${formatBytes(fileBytes)}${recording === undefined ? "" : `, recorded ${recording.recordedAt}`}`,
    `machine    ${printable(machine)}, uuid ${uuid ?? "not said"}, pages of ${pageSize} bytes`,
  ];
  if (capabilities.length > 0) lines.push(`with       ${printable(capabilities.join(", "))}`);
  if (records.normal + records.zero + records.syncs > 0) {
    lines.push(
      `records    ${records.normal} normal pages, ${records.zero} zero pages, ${records.syncs} sync points`,
    );
  }
  lines.push("", "RAM block                         bytes      normal        zero      absent");
  for (const { idstr, bytes, normalPages, zeroPages, absentPages } of blocks) {
    const counts = [normalPages, zeroPages, absentPages].map((count) => String(count).padStart(11));
    lines.push(`${printable(idstr).padEnd(28)}${String(bytes).padStart(11)} ${counts.join(" ")}`);
  }
  const described = hasDescription ? "" : ", no VM description in the file";
  lines.push("", `device                       instance  version       bytes${described}`);
  for (const { name, instanceId, version, bytes, described: known } of devices) {
    const numbers = [instanceId, version].map((number) => String(number).padStart(8)).join(" ");
    lines.push(
      `${printable(name).padEnd(28)} ${numbers} ${String(bytes).padStart(11)}${known ? "" : "  (not described)"}`,
    );
  }
  if (!withSections) return lines;
  lines.push("", "offset           bytes section");
  for (const { kind: type, offset, bytes, sectionId, name, instanceId, command } of sections) {
    const what = [
      type,
      command === undefined ? undefined : `number ${command}`,
      sectionId === undefined ? undefined : `id ${sectionId}`,
      name === undefined ? undefined : `${printable(name)} ${instanceId}`,
    ];
    const parts = what.filter((part) => part !== undefined).join(", ");
    lines.push(`${String(offset).padEnd(12)}${String(bytes).padStart(10)} ${parts}`);
  }
  return lines;
}

function fieldLines(
  fields: readonly DeviceField[],
  subsections: readonly DeviceSubsection[],
  indent: string,
): string[] {
  return [
    ...fields.flatMap((field) => {
      const { name, type, index, value, fields: inner, subsections: parts } = field;
      const place = index === undefined ? "" : `[${index}]`;
      const shown = value === undefined ? "" : ` = ${value}`;
      const line = `${indent}${printable(name)}${place}: ${printable(type)}${shown}`;
      return [line, ...fieldLines(inner ?? [], parts ?? [], `${indent}  `)];
    }),
    ...subsections.flatMap(({ name, version, fields: inner, subsections: parts }) => [
      `${indent}subsection ${printable(name)} version ${version}`,
      ...fieldLines(inner, parts, `${indent}  `),
    ]),
  ];
}

/** Names come from the file, and a terminal must not obey them. */
function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?");
}

await runProgram(USAGE, analyzeFile);
