/**
 * Makes a fresh clone runnable: npm packages and the bundled worker. The demo and the tests run
 * this first, so that one command is enough. It may import only Bun's and Node's own modules.
 *
 * There is no test for "already installed": with nothing to do, `bun install` answers in a few
 * milliseconds and without the network, and it also notices a stale or damaged node_modules.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

import { bun, repositoryRoot, run } from "./command.ts";

const workerEntry = "lib/entry.ts";

/**
 * Installs exactly what bun.lock says and builds the worker bundle.
 *
 * @returns whether both succeeded
 */
export async function installDependencies(): Promise<boolean> {
  if ((await run([bun, "install", "--frozen-lockfile"])) !== 0) return false;
  if (!existsSync(join(repositoryRoot, workerEntry))) return true;
  return (await run([bun, "run", "--silent", "build:worker"])) === 0;
}

if (import.meta.main && !(await installDependencies())) {
  console.error(
    "Cannot set up multifd: installing its npm packages or building its worker failed, " +
      "see the messages above; the npm registry must be reachable the first time",
  );
  process.exit(1);
}
