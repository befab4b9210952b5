import { describe, expect, test } from "bun:test";
import { BlockTable } from "../lib/memory/block_table.ts";
import { PageCrew } from "../lib/memory/page_crew.ts";
import { PageOperation } from "../lib/memory/page_task.ts";
import { RamBlock } from "../mod.ts";

const PAGE = 4096;

/** Two blocks with twins; the first has a chunk that is not full. */
function makeTable(): { table: BlockTable; blocks: RamBlock[]; twins: RamBlock[] } {
  const pages = [2500, 7];
  const make = (): RamBlock[] =>
    pages.map((count, index) => RamBlock.allocate(`block${index}`, count * PAGE));
  const [blocks, twins] = [make(), make()];
  const table = new BlockTable(2 * pages.reduce((sum, count) => sum + count * PAGE, PAGE));
  for (const [index, block] of blocks.entries()) table.add(block, twins[index]);
  return { table, blocks, twins };
}

function wordsOf(block: RamBlock): Uint32Array {
  return new Uint32Array(block.segments[0]!.buffer!);
}

describe("PageCrew", () => {
  for (const threads of [0, 1, 4]) {
    test(`${threads} threads do every page once, task after task`, async () => {
      const { table, blocks, twins } = makeTable();
      using crew = new PageCrew(table, threads);
      let random = threads + 1;
      const next = (below: number): number => {
        random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
        return Math.floor((random / 2 ** 32) * below);
      };
      for (let turn = 1; turn <= 150; turn++) {
        const changed = blocks.map(() => new Set<number>());
        for (const [index, block] of blocks.entries()) {
          for (let count = next(20); count >= 0; count--) {
            const page = next(block.pages);
            wordsOf(block)[(page * PAGE) / 4 + next(PAGE / 4)] = turn;
            changed[index]!.add(page);
          }
        }
        const operation = turn % 2 === 0 ? PageOperation.COMPARE : PageOperation.MARK;
        const isAsync = threads > 0 && turn % 3 === 0;
        const found = isAsync ? await crew.run(operation) : crew.runBlocking(operation);
        expect(found).toBe(changed[0]!.size + changed[1]!.size);
        for (const [index, block] of table.blocks.entries()) {
          const { dirty } = block.twin!;
          expect([...changed[index]!].every((page) => dirty.has(page))).toBe(true);
          expect(dirty.count()).toBe(changed[index]!.size);
        }
        expect(crew.runBlocking(PageOperation.APPLY)).toBe(found);
        expect(table.blocks.every((block) => block.twin!.dirty.count() === 0)).toBe(true);
      }
      for (const [index, block] of blocks.entries()) {
        const [own, other] = [block.view(0, block.bytes), twins[index]!.view(0, block.bytes)];
        expect(Buffer.compare(own, other)).toBe(0);
      }
    });
  }

  test("applying copies dirty pages alone", () => {
    const { table, blocks, twins } = makeTable();
    using crew = new PageCrew(table, 2);
    wordsOf(blocks[0]!).fill(1);
    table.blocks[0]!.twin!.dirty.setRange(1020, 1030);
    expect(crew.runBlocking(PageOperation.APPLY)).toBe(10);
    const words = wordsOf(twins[0]!);
    const perPage = PAGE / 4;
    expect(words.indexOf(1)).toBe(1020 * perPage);
    expect(words.lastIndexOf(1)).toBe(1030 * perPage - 1);
  });

  test("copying makes all twins equal, and blocks without a twin are passed over", () => {
    const { table, blocks, twins } = makeTable();
    table.add(RamBlock.allocate("alone", PAGE));
    using crew = new PageCrew(table, 2);
    for (const block of blocks) wordsOf(block).fill(7);
    crew.runBlocking(PageOperation.COPY);
    for (const twin of twins) expect(wordsOf(twin).every((word) => word === 7)).toBe(true);
  });
});
