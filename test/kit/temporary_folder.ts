/** A folder of a test's own, removed with everything in it. */
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
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
  file(...names: readonly string[]): string {
    return join(this.path, ...names);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Whether the file system of temporary folders has O_DIRECT; many in memory have not. */
export function hasDirectIo(): boolean {
  using folder = new TemporaryFolder();
  try {
    const { O_CREAT, O_WRONLY, O_DIRECT } = constants;
    closeSync(openSync(folder.file("direct"), O_CREAT | O_WRONLY | O_DIRECT));
    return true;
  } catch {
    return false;
  }
}
