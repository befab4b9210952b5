/**
 * `snapshot info`: what is in a file, without reading its pages.
 *
 * @module
 */
import {
  orderedPages,
  readPageOrder,
  snapshotDevices,
  type Snapshot,
  type SnapshotBlock,
} from "../../mod.ts";
import { formatBytes } from "../units.ts";
import {
  COMMON_OPTIONS,
  openFileArgument,
  parseCommand,
  sharedBlockLines,
  type SnapshotCommand,
} from "./command.ts";

/** See the module comment. */
export const infoCommand: SnapshotCommand = {
  summary: "show machine, devices and blocks",
  usage: `\
Usage: bun examples/snapshot.ts info FILE[,offset=N] [--order ORDER] [--json]

Shows what a mapped-ram file holds, plain or compressed, without reading its pages. --order: and what a
file of qemu_restore.ts --learn says that its guest asks for first.`,
  async run(args) {
    const { values, files } = parseCommand(args, ["FILE"], {
      ...COMMON_OPTIONS,
      order: { type: "string" },
    });
    using file = await openFileArgument(files[0]);
    const { configuration, start, fileBytes, deviceStateOffset } = file.index;
    const { machine, uuid, capabilities } = configuration;
    const stored = file.storage();
    const devices = snapshotDevices(file);
    const order = values.order === undefined ? null : orderFacts(file, values.order);
    const facts = {
      path: file.path,
      offset: start,
      compressed: file.compressed,
      contentBytes: fileBytes,
      fileBytes: stored.fileBytes,
      diskBytes: stored.diskBytes,
      machine,
      uuid: uuid === undefined ? null : Buffer.from(uuid).toString("hex"),
      capabilities,
      switchoverStart: file.index.switchoverStart,
      deviceStateBytes: fileBytes - deviceStateOffset,
      devices: devices ?? null,
      sharedBlocks: file.index.sharedBlocks,
      blocks: file.blocks.map(blockFacts),
      order,
    };
    const lines = [
      `file       ${formatBytes(stored.fileBytes)}, ${formatBytes(facts.diskBytes)} on disk${file.compressed ? `, compressed from ${formatBytes(fileBytes)}` : ""}`,
      ...(start > 0 ? [`stream     from byte ${start} on`] : []),
      `machine    ${machine}`,
      `devices    ${devices?.length ?? "not listed"}, ${formatBytes(facts.deviceStateBytes)} of state`,
      ...facts.blocks.map(
        ({ idstr, bytes, presentPages, presentBytes, runs }) =>
          `block      ${idstr}: ${formatBytes(bytes)}, ${presentPages} pages present (${formatBytes(presentBytes)}) in ${runs} runs`,
      ),
      ...sharedBlockLines(file),
      ...(order === null
        ? []
        : [`order      ${order.pages} pages (${formatBytes(order.bytes)}) in ${order.runs} runs`]),
    ];
    return { json: values.json ?? false, facts, lines };
  },
};

function orderFacts(file: Snapshot, path: string) {
  const order = readPageOrder(path, file.blocks);
  const pages = orderedPages(order);
  const [{ pageSize } = { pageSize: 0 }] = file.blocks;
  return { path, pages, bytes: pages * pageSize, runs: order.runs.length / 3 };
}

function blockFacts(block: SnapshotBlock) {
  const { idstr, bytes, pageSize, pages, bitmapOffset, pagesOffset, present } = block;
  const presentPages = present.count();
  const presentBytes = presentPages * pageSize;
  const runs = [...present.runs()].length;
  return {
    idstr,
    bytes,
    pageSize,
    pages,
    presentPages,
    presentBytes,
    runs,
    bitmapOffset,
    pagesOffset,
  };
}
