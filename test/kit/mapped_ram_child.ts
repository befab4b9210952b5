/**
 * Programs that a test runs as processes of their own, to kill them or to fill their disk.
 *
 *     bun mapped_ram_child.ts overwrite PATH OFFSET   writes one file after the other until killed
 *     bun mapped_ram_child.ts fill-disk FOLDER        writes more than a folder of 8 MiB can hold
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { createMappedRamFile, openMappedRamFile, RamBlock, type MultifdError } from "../../mod.ts";

const MIB = 1 << 20;

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
    await using writer = await createMappedRamFile({ path, offset, blocks: [block], channels: 2 });
    await writer.write();
    await writer.complete();
    process.stdout.write(`${generation}\n`);
  }
}

async function fillDisk(folder: string): Promise<void> {
  const path = join(folder, "guest.snap");
  const save = async (bytes: number): Promise<void> => {
    const block = RamBlock.allocate("pc.ram", bytes);
    fillWords(block, 1);
    await using writer = await createMappedRamFile({ path, blocks: [block], channels: 3 });
    await writer.write();
    await writer.complete();
  };
  const failure = await save(32 * MIB).catch((error: unknown) => error as MultifdError);
  const left = readdirSync(folder);
  await save(4 * MIB); // the room is there again, and the next file can be written
  using file = await openMappedRamFile(path);
  const present = file.block("pc.ram").present.count();
  console.log(JSON.stringify({ code: failure?.code, errno: failure?.errno, left, present }));
}

const [command, path = "", offset = "0"] = process.argv.slice(2);
if (command === "overwrite") await overwrite(path, Number(offset));
else if (command === "fill-disk") await fillDisk(path);
else throw new Error(`Cannot run ${command}: must be overwrite or fill-disk`);
