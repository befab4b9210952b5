/**
 * `snapshot extract`: a block or a part of it as a raw image.
 *
 * @module
 */
import { extractBlock } from "../../mod.ts";
import { byteCount, fromArguments, required } from "../arguments.ts";
import { formatBytes } from "../units.ts";
import {
  blockArgument,
  ByteProgress,
  COMMON_OPTIONS,
  openFileArgument,
  parseCommand,
  type SnapshotCommand,
} from "./command.ts";

/** See the module comment. */
export const extractCommand: SnapshotCommand = {
  summary: "copy a block or a range of it to a raw image",
  usage: `\
Usage: bun examples/snapshot.ts extract FILE[,offset=N] --block IDSTR --output IMAGE [options]

Copies the memory of a block to a raw image with holes for zero pages.

  --from BYTES             first byte of the block (default 0); K, M, G, T for powers of 1024
  --length BYTES           how many bytes (default: up to the end of the block)
  --json                   print one JSON object as the last line of stdout`,
  async run(args, signal) {
    const { values, files } = parseCommand(args, ["FILE"], {
      ...COMMON_OPTIONS,
      block: { type: "string" },
      output: { type: "string" },
      from: { type: "string", default: "0" },
      length: { type: "string" },
    });
    const idstr = required("--block", values.block);
    const output = required("--output", values.output);
    const offset = byteCount("--from", values.from);
    const length = values.length === undefined ? undefined : byteCount("--length", values.length);
    using file = await openFileArgument(files[0]);
    blockArgument(file, idstr);
    using progress = new ByteProgress("extracting");
    const options = { offset, bytes: length, signal, onProgress: progress.report };
    const dataBytes = await fromArguments(extractBlock(file, idstr, output, options));
    progress.complete();
    const bytes = length ?? file.block(idstr).bytes - offset;
    return {
      json: values.json ?? false,
      facts: { block: idstr, output, offset, bytes, dataBytes },
      lines: [`${output}: ${formatBytes(bytes)} of ${idstr}, ${formatBytes(dataBytes)} not zero`],
    };
  },
};
