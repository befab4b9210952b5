/**
 * `snapshot diff`: which pages changed between two snapshots.
 *
 * @module
 */
import { diffSnapshots, type BlockPageRun, type Snapshot } from "../../mod.ts";
import {
  ByteProgress,
  COMMON_OPTIONS,
  openFileArgument,
  parseCommand,
  type SnapshotCommand,
} from "./command.ts";

/** See the module comment. */
export const diffCommand: SnapshotCommand = {
  summary: "list runs of pages that differ",
  usage: `\
Usage: bun examples/snapshot.ts diff LEFT[,offset=N] RIGHT[,offset=N] [--json]

Lists runs of pages whose content differs, as block, first page and end (not included). Blocks that
only one side has, or that have another length there, are listed by name. The status is 0 whether
there are differences or not.`,
  async run(args, signal) {
    const { values, files } = parseCommand(args, ["LEFT", "RIGHT"], COMMON_OPTIONS);
    using left = await openFileArgument(files[0]);
    using right = await openFileArgument(files[1]);
    const { common, unmatched } = matchBlocks(left, right);
    using progress = new ByteProgress("comparing");
    const runs: BlockPageRun[] = [];
    let changedPages = 0;
    const options = { blocks: common, signal, onProgress: progress.report };
    for await (const run of diffSnapshots(left, right, options)) {
      runs.push(run);
      changedPages += run.end - run.start;
    }
    progress.complete();
    return {
      json: values.json ?? false,
      facts: { changedPages, runs, unmatched },
      lines: [
        ...runs.map(({ idstr, start, end }) => `${idstr} ${start} ${end}`),
        ...unmatched.map((idstr) => `${idstr} is not in both with the same length`),
        `${changedPages} pages differ in ${runs.length} runs`,
      ],
    };
  },
};

/** Names of blocks that can be compared, and of those that cannot. */
export function matchBlocks(
  left: Snapshot,
  right: Snapshot,
): { readonly common: string[]; readonly unmatched: string[] } {
  const lengths = new Map(right.blocks.map(({ idstr, bytes }) => [idstr, bytes]));
  const common = left.blocks
    .filter(({ idstr, bytes }) => lengths.get(idstr) === bytes)
    .map(({ idstr }) => idstr);
  const all = [left, right].flatMap(({ blocks, index }) => [...blocks, ...index.sharedBlocks]);
  const names = new Set(all.map(({ idstr }) => idstr));
  return { common, unmatched: [...names].filter((idstr) => !common.includes(idstr)) };
}
