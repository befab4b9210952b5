/** What attached blocks hold, and snapshots to attach. */
import type { RamBlock } from "../../mod.ts";

/** Digest of a block; pages are touched from the last to the first. */
export function digestOf(block: RamBlock): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (let page = block.pages - 1; page >= 0; page--) {
    hasher.update(block.view(page * block.pageSize, block.pageSize));
  }
  return hasher.digest("hex");
}
