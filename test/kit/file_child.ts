/**
 * Programs around files that a test runs as processes of their own, to kill them or because they
 * might block.
 *
 *     bun file_child.ts fifo PATH          opens a pipe in every way there is; prints the codes
 *     bun file_child.ts write KIND FOLDER  begins a large output, says so, and goes on until killed
 */
import { join } from "node:path";
import { OutputFile } from "../../lib/storage/output_file.ts";
import {
  analyze,
  compressMappedRamFile,
  createMappedRamFile,
  describeError,
  extractBlock,
  MultifdError,
  openMappedRamFile,
  RamBlock,
  Recording,
  writeRecording,
  type GuestState,
} from "../../mod.ts";

const MIB = 1 << 20;

async function openPipe(path: string): Promise<void> {
  const block = RamBlock.allocate("pc.ram", MIB);
  const ways: Record<string, () => unknown> = {
    openMappedRamFile: () => openMappedRamFile(path),
    createMappedRamFile: () => createMappedRamFile({ path, blocks: [block] }),
    inPlace: () => createMappedRamFile({ path, blocks: [block], inPlace: true }),
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

const STATE: GuestState = {
  machine: "none",
  uuid: new Uint8Array(16),
  validateUuid: false,
  ramSectionId: 1,
  early: new Uint8Array(),
  switchoverStart: false,
  devices: Uint8Array.of(0),
};

async function writeUntilKilled(kind: string, folder: string): Promise<void> {
  const output = join(folder, "output");
  const block = RamBlock.allocate("pc.ram", 64 * MIB);
  for (const view of block.views()) view.fill(1);
  const begun = (): void => void process.stdout.write("begun\n");
  const snapshot = async (): Promise<string> => {
    const path = join(folder, "guest.snap");
    await using writer = await createMappedRamFile({ path, blocks: [block], sync: false });
    await writer.write();
    await writer.complete();
    return path;
  };
  if (kind === "named") {
    const file = new OutputFile(output, { unnamed: false });
    begun();
    for (;;) await file.write(new Uint8Array(MIB), 0);
  }
  if (kind === "snapshot") {
    await using writer = await createMappedRamFile({ path: output, blocks: [block] });
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
    await using writer = await createMappedRamFile({ path: join(folder, "x"), blocks: [block] });
    const content = { blocks: [block], state: STATE, compression: "none" };
    setTimeout(begun, 30);
    for (;;) await writeRecording(output, { ...content, statistics: writer.statistics() });
  }
  using file = await openMappedRamFile(await snapshot());
  setTimeout(begun, 30);
  if (kind === "compressed") {
    for (;;) await compressMappedRamFile(file, output, { level: 19 });
  }
  for (;;) await extractBlock(file, "pc.ram", output);
}

const [command, first = "", second = ""] = process.argv.slice(2);
if (command === "fifo") await openPipe(first);
else if (command === "write") await writeUntilKilled(first, second);
else throw new Error(`Cannot run ${command}: must be fifo or write`);
