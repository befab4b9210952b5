/**
 * Where the set-up keeps what it has downloaded or built for the next run: outside the repository,
 * so that a fresh clone does not pay for it again.
 */
import { homedir } from "node:os";
import { join } from "node:path";

/** The folder; it need not exist yet. */
export function cacheDirectory(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "multifd");
}
