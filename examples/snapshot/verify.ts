/**
 * `snapshot verify`: reads everything, and compares it with images if there are any.
 *
 * @module
 */
import { diffSnapshots, verifySnapshot } from "../../mod.ts";
import { blockArguments } from "../arguments.ts";
import {
  ByteProgress,
  COMMON_OPTIONS,
  openFileArgument,
  parseCommand,
  sharedBlockLines,
  type SnapshotCommand,
} from "./command.ts";
import { RawImages } from "./raw_images.ts";

/** See the module comment. */
export const verifyCommand: SnapshotCommand = {
  summary: "read everything, and compare it with images",
  usage: `\
Usage: bun examples/snapshot.ts verify FILE[,offset=N] [--block IDSTR=IMAGE]... [--json]

Checks headers and bitmaps, reads every page and the end of the stream. With --block, the memory of
that block must equal a raw image; the status is 1 if it does not.`,
  async run(args, signal) {
    const { values, files } = parseCommand(args, ["FILE"], {
      ...COMMON_OPTIONS,
      block: { type: "string", multiple: true },
    });
    const images = values.block === undefined ? [] : blockArguments(values.block);
    using file = await openFileArgument(files[0]);
    using raw = new RawImages(file, images);
    using progress = new ByteProgress("verifying");
    const verified = await verifySnapshot(file, { signal, onProgress: progress.report });
    let differentPages = 0;
    const blocks = images.map(({ idstr }) => idstr);
    const options = { blocks, signal, onProgress: progress.report };
    for await (const { start, end } of diffSnapshots(file, raw, options)) {
      differentPages += end - start;
    }
    progress.complete();
    const { presentPages, presentZeroPages, sharedBlocks, devices } = verified;
    const compared = images.length > 0 ? [`compared   ${differentPages} pages differ`] : [];
    return {
      json: values.json ?? false,
      facts: {
        presentPages,
        presentZeroPages,
        sharedBlocks,
        devices: devices ?? null,
        differentPages,
      },
      lines: [
        `pages      ${presentPages} read, ${presentZeroPages} of them zero`,
        `stream     complete, ${devices?.length ?? "unlisted"} devices`,
        ...compared,
        ...sharedBlockLines(file),
      ],
      failed: differentPages > 0,
    };
  },
};
