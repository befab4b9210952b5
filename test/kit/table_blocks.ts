/** Blocks as channel threads see them, for tests of packets and codecs. */
import { BlockTable, type TableBlock } from "../../lib/memory/block_table.ts";
import { PageRuns } from "../../lib/memory/page_runs.ts";
import { packetPages } from "../../lib/wire/packet.ts";
import type { RamBlock } from "../../mod.ts";

/** The given blocks in a table of their own; the caller keeps them alive. */
export function tableOf(...blocks: readonly RamBlock[]): readonly TableBlock[] {
  const table = new BlockTable(blocks.reduce((sum, { bytes }) => sum + bytes, 0));
  for (const block of blocks) table.add(block);
  return table.blocks;
}

/** Pages of one block as runs of memory. */
export function runsOf(block: TableBlock, pages: readonly number[]): PageRuns {
  const runs = new PageRuns(packetPages(block.pageSize));
  runs.assign(block, Uint32Array.from(pages), 0, pages.length);
  return runs;
}
