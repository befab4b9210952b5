/**
 * Where threads find their programs. A program is one file that `bun run build:worker` builds from
 * an entry in this folder's parent: a thread that loads it starts several times as fast as one that
 * has to transpile its sources. In a bundle or a compiled binary there are no files, and the
 * programs travel inside as text.
 *
 * @module
 */
import { fileSystem, programOf, xxHash64 } from "../../ffi/runtime/runtime.ts";

/**
 * Programs by the name of their entry: `channel_entry` has what needs only shared memory and native
 * functions, `entry` all the rest.
 */
export type ThreadProgram = "entry" | "channel_entry";

/** URLs of all programs. */
export type ProgramUrls = Readonly<Record<ThreadProgram, string>>;

/**
 * First line of a built program, a comment: how its sources were when it was built. Paths are
 * relative to the root of the package.
 */
export interface ProgramManifest {
  /** Before the build, in milliseconds since 1970. */
  readonly builtAt: number;
  /** Path and hash of every source. */
  readonly sources: Readonly<Record<string, string>>;
}

/** What stands before the manifest. */
export const MANIFEST_MARK = "//multifd ";

/** Hash of a source in a manifest. */
export function sourceHash(bytes: Uint8Array): string {
  return xxHash64(bytes).toString(36);
}

let found: ProgramUrls | undefined;

/** URLs of the programs; looked up once. */
export function programUrls(): ProgramUrls {
  return (found ??= findPrograms());
}

/** In a thread: uses what its maker has found. */
export function adoptPrograms(programs: ProgramUrls): void {
  found ??= programs;
}

function findPrograms(): ProgramUrls {
  // From source and as an installed package this is a file of its own.
  if (import.meta.url.endsWith("/lib/thread/thread_program.ts")) {
    const { existsSync } = fileSystem();
    if (existsSync(new URL(import.meta.url))) {
      return { entry: fileProgram("entry"), channel_entry: fileProgram("channel_entry") };
    }
  }
  // Calls and not imports: from source the files need not exist.
  return {
    entry: textProgram(require("../entry.bundle.txt") as BundledText),
    channel_entry: textProgram(require("../channel_entry.bundle.txt") as BundledText),
  };
}

type BundledText = string | { readonly default: string };

function textProgram(text: BundledText): string {
  return programOf(typeof text === "string" ? text : text.default);
}

/** The built program, if it is there and its sources are as they were; else its entry. */
function fileProgram(name: ThreadProgram): string {
  const { readFileSync } = fileSystem();
  try {
    const text = readFileSync(new URL(`../${name}.bundle.txt`, import.meta.url), "utf8");
    if (isCurrent(text)) return programOf(text);
  } catch {
    // Not built, or a source of it is gone.
  }
  return new URL(`../${name}.ts`, import.meta.url).href;
}

/** Whether all sources of a program are as they were when it was built. */
function isCurrent(text: string): boolean {
  if (!text.startsWith(MANIFEST_MARK)) return false;
  const line = text.slice(MANIFEST_MARK.length, text.indexOf("\n"));
  const { builtAt, sources } = JSON.parse(line) as ProgramManifest;
  const { readFileSync, statSync } = fileSystem();
  const root = new URL("../../", import.meta.url);
  return Object.entries(sources).every(([path, hash]) => {
    const file = new URL(path, root);
    // Nothing that changes a file, or puts another in its place, can keep this time.
    return statSync(file).ctimeMs < builtAt || sourceHash(readFileSync(file)) === hash;
  });
}
