/**
 * Programs around files that a test runs as processes of their own, to kill them or because they
 * might block.
 *
 *     bun file_child.ts fifo PATH               opens a pipe in every way there is; prints the codes
 *     bun file_child.ts write KIND FOLDER       begins a large output, says so, and goes on until killed
 *     bun file_child.ts overwrite PATH OFFSET   writes one file after the other until killed
 *     bun file_child.ts fill-disk FOLDER        writes more than a folder of 8 MiB can hold
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { OutputFile } from "../../lib/storage/output_file.ts";
import {
  analyze,
  compressSnapshot,
  createSnapshot,
  describeError,
  extractBlock,
  MultifdError,
  openSnapshot,
  RamBlock,
  Recording,
  writeRecording,
} from "../../mod.ts";
import { EMPTY_STATE, saveSnapshot } from "./snapshots.ts";

const MIB = 1 << 20;

async function openPipe(path: string): Promise<void> {
  const block = RamBlock.allocate("pc.ram", MIB);
  const ways: Record<string, () => unknown> = {
    openSnapshot: () => openSnapshot(path),
    createSnapshot: () => createSnapshot({ path, blocks: [block] }),
    inPlace: () => createSnapshot({ path, blocks: [block], inPlace: true }),
    map: () => RamBlock.map("pc.ram", path),
    mapWritable: () => RamBlock.map("pc.ram", path, { writable: true }),
    fromFile: () => RamBlock.fromFile("pc.ram", path),
    toFile: () => block.toFile(path),
    recording: () => Recording.open(path),
    analyze: () => analyze(path),
  };
  const codes: Record<string, string> = {};
  for (const [way, open] of Object.entries(ways)) {
    try {
      await open();
      codes[way] = "opened";
    } catch (error) {
      codes[way] = error instanceof MultifdError ? error.code : describeError(error);
    }
  }
  console.log(JSON.stringify(codes));
}

async function writeUntilKilled(kind: string, folder: string): Promise<void> {
  const output = join(folder, "output");
  const block = RamBlock.allocate("pc.ram", 64 * MIB);
  for (const view of block.views()) view.fill(1);
  const begun = (): void => void process.stdout.write("begun\n");
  if (kind === "named") {
    const file = new OutputFile(output, { unnamed: false });
    begun();
    for (;;) await file.write(new Uint8Array(MIB), 0);
  }
  if (kind === "snapshot") {
    await using writer = await createSnapshot({ path: output, blocks: [block] });
    for (;;) {
      await writer.write();
      begun();
    }
  }
  if (kind === "image") {
    setTimeout(begun, 30);
    for (;;) await block.toFile(output);
  }
  if (kind === "recording") {
    await using writer = await createSnapshot({ path: join(folder, "x"), blocks: [block] });
    const content = { blocks: [block], state: EMPTY_STATE, compression: "none" };
    setTimeout(begun, 30);
    for (;;) await writeRecording(output, { ...content, statistics: writer.statistics() });
  }
  const path = join(folder, "guest.snap");
  await saveSnapshot({ path, blocks: [block] });
  using file = await openSnapshot(path);
  setTimeout(begun, 30);
  if (kind === "compressed") {
    for (;;) await compressSnapshot(file, output, { level: 19 });
  }
  for (;;) await extractBlock(file, "pc.ram", output);
}

/** Fills every 32-bit word of a block with the same number. */
function fillWords(block: RamBlock, word: number): void {
  for (const view of block.views()) {
    new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4).fill(word);
  }
}

async function overwrite(path: string, offset: number): Promise<void> {
  const block = RamBlock.allocate("pc.ram", 8 * MIB);
  for (let generation = 1; ; generation++) {
    fillWords(block, generation);
    await saveSnapshot({ path, offset, blocks: [block], channels: 2, sync: true });
    process.stdout.write(`${generation}\n`);
  }
}

async function fillDisk(folder: string): Promise<void> {
  const path = join(folder, "guest.snap");
  const save = async (bytes: number): Promise<void> => {
    const block = RamBlock.allocate("pc.ram", bytes);
    fillWords(block, 1);
    await saveSnapshot({ path, blocks: [block], channels: 3, sync: true });
  };
  const failure = await save(32 * MIB).catch((error: unknown) => error as MultifdError);
  const left = readdirSync(folder);
  await save(4 * MIB); // the room is there again, and the next file can be written
  using file = await openSnapshot(path);
  const present = file.block("pc.ram").present.count();
  console.log(JSON.stringify({ code: failure?.code, errno: failure?.errno, left, present }));
}

const [command = "", first = "", second = ""] = process.argv.slice(2);
if (command === "fifo") await openPipe(first);
else if (command === "write") await writeUntilKilled(first, second);
else if (command === "overwrite") await overwrite(first, Number(second));
else if (command === "fill-disk") await fillDisk(first);
else throw new Error(`Cannot run ${command}: must be fifo, write, overwrite or fill-disk`);
