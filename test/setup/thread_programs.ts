/**
 * Builds the programs of threads: one file each, with a first line that says what it was built
 * from, so that it is never run when a source has changed. It may import only Bun's and Node's own
 * modules and the library.
 */
import { join, relative } from "node:path";

import {
  MANIFEST_MARK,
  sourceHash,
  type ProgramManifest,
  type ThreadProgram,
} from "../../lib/thread/thread_program.ts";
import { repositoryRoot } from "./command.ts";

const programs: readonly ThreadProgram[] = ["entry", "channel_entry"];

/** Builds one program; returns its text. */
export async function buildThreadProgram(name: ThreadProgram, root: string): Promise<string> {
  const builtAt = Date.now();
  const { outputs, metafile } = await Bun.build({
    entrypoints: [join(root, "lib", `${name}.ts`)],
    root,
    target: "bun",
    format: "esm",
    minify: true,
    metafile: true,
    external: ["*.bundle.txt"],
  });
  const paths = Object.keys(metafile?.inputs ?? {}).map((path) =>
    relative(root, join(process.cwd(), path)),
  );
  const sources: Record<string, string> = {};
  for (const path of paths.toSorted()) {
    sources[path] = sourceHash(await Bun.file(join(root, path)).bytes());
  }
  const manifest: ProgramManifest = { builtAt, sources };
  return `${MANIFEST_MARK}${JSON.stringify(manifest)}\n${await outputs[0]!.text()}`;
}

if (import.meta.main) {
  for (const name of programs) {
    const text = await buildThreadProgram(name, repositoryRoot);
    await Bun.write(join(repositoryRoot, "lib", `${name}.bundle.txt`), text);
  }
}
