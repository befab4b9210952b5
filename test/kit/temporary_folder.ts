/** A folder of a test's own, removed with everything in it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** See the module comment. */
export class TemporaryFolder implements Disposable {
  readonly path: string;

  /** @param parent Where to make it; by default on disk, and not in memory as /dev/shm is. */
  constructor(parent: string = tmpdir()) {
    this.path = mkdtempSync(join(parent, "multifd-test-"));
  }

  /** Path of a file in the folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
