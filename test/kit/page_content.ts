/**
 * Page contents that tests fill blocks with: reproducible, and of every kind a codec treats
 * differently.
 *
 * @module
 */
import type { RamBlock } from "../../mod.ts";

/** Pseudo-random 32-bit numbers; the same seed gives the same numbers. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** What a page holds. */
export type PageKind = "zero" | "text" | "random" | "late";

const KINDS: readonly PageKind[] = ["zero", "text", "random", "late", "zero", "random", "text"];

/** Fills `view` with content of that kind. */
export function fillPage(view: Uint8Array, kind: PageKind, seed: number): void {
  switch (kind) {
    case "zero":
      view.fill(0);
      return;
    case "text": {
      const line = new TextEncoder().encode(`page ${seed} of a guest that writes logs; `);
      for (let at = 0; at < view.byteLength; at++) view[at] = line[at % line.byteLength] ?? 0;
      return;
    }
    case "random": {
      const next = randomNumbers(seed + 1);
      for (let at = 0; at < view.byteLength; at++) view[at] = next();
      return;
    }
    case "late":
      // Zero but for its last byte: a scan for zero pages must read to the end.
      view.fill(0);
      view[view.byteLength - 1] = 1;
  }
}

/** Fills a block with all kinds of pages. */
export function fillBlock(block: RamBlock, seed: number): void {
  for (let page = 0; page < block.pages; page++) {
    const view = block.view(page * block.pageSize, block.pageSize);
    fillPage(view, KINDS[(page + seed) % KINDS.length] ?? "zero", seed * 65_537 + page);
  }
}

/** Pages in which two blocks differ, at most a few of them. */
export function differingPages(left: RamBlock, right: RamBlock): number[] {
  const pages: number[] = [];
  for (let page = 0; page < left.pages && pages.length < 5; page++) {
    const at = page * left.pageSize;
    const equal = Buffer.compare(left.view(at, left.pageSize), right.view(at, left.pageSize)) === 0;
    if (!equal) pages.push(page);
  }
  return pages;
}
