/**
 * `snapshot apply`: a copy of a snapshot with other memory.
 *
 * @module
 */
import { copySnapshot, diffSnapshots, type PageReader } from "../../mod.ts";
import { blockArguments, required, UsageError } from "../arguments.ts";
import {
  ByteProgress,
  COMMON_OPTIONS,
  openFileArgument,
  parseCommand,
  type SnapshotCommand,
} from "./command.ts";
import { matchBlocks } from "./diff.ts";
import { RawImages } from "./raw_images.ts";

/** See the module comment. */
export const applyCommand: SnapshotCommand = {
  summary: "write changed pages into a copy",
  usage: `\
Usage: bun examples/snapshot.ts apply BASE[,offset=N] --output COPY (--from OTHER | --block IDSTR=IMAGE...)

Copies BASE, device state included, and writes into the copy the pages in which its memory differs
from another snapshot's or from raw images. The copy is a plain mapped-ram file that QEMU restores.

  --from OTHER[,offset=N]  snapshot with the new memory
  --block IDSTR=IMAGE      raw image with the new memory of a block; may repeat
  --json                   print one JSON object as the last line of stdout`,
  async run(args, signal) {
    const { values, files } = parseCommand(args, ["BASE"], {
      ...COMMON_OPTIONS,
      output: { type: "string" },
      from: { type: "string" },
      block: { type: "string", multiple: true },
    });
    const output = required("--output", values.output);
    if ((values.from === undefined) === (values.block === undefined)) {
      throw new UsageError("Missing the new memory: either --from or --block is needed");
    }
    using base = await openFileArgument(files[0]);
    using open = new DisposableStack();
    let pages: PageReader;
    let blocks: string[];
    if (values.from === undefined) {
      const images = blockArguments(values.block);
      pages = open.use(new RawImages(base, images));
      blocks = images.map(({ idstr }) => idstr);
    } else {
      const other = open.use(await openFileArgument(values.from));
      const { common, unmatched } = matchBlocks(base, other);
      if (unmatched.length > 0) {
        const names = unmatched.join(", ");
        throw new Error(`Cannot apply ${other.path}: ${names} is not in both with the same length`);
      }
      pages = other;
      blocks = common;
    }
    using progress = new ByteProgress("applying");
    const runs = diffSnapshots(base, pages, { blocks, signal });
    const copied = await copySnapshot(base, output, {
      changes: { runs, pages },
      signal,
      onProgress: progress.report,
    });
    progress.complete();
    const { changedPages, presentPages } = copied;
    return {
      json: values.json ?? false,
      facts: { output, changedPages, presentPages },
      lines: [`${output}: ${changedPages} pages changed, ${presentPages} present`],
    };
  },
};
