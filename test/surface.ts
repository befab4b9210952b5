/** Prints the public surface anew: `bun run surface` writes docs/surface.txt. */
import { join } from "node:path";
import { readSurface, SURFACE_FILE } from "./kit/surface.ts";
import { repositoryRoot } from "./setup/command.ts";

const { text, names } = await readSurface();
await Bun.write(join(repositoryRoot, SURFACE_FILE), text);
console.log(`${names.length} names in ${SURFACE_FILE}`);
