/**
 * Finds or builds Intel's QPL for the tests. Debian has it in sid only, for a newer C library than
 * older releases have; but its static library is little more than machine code, and linked together
 * with the two functions of the newer C library that it calls it runs on all of them.
 *
 * What was built is kept for the next run, outside the repository.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { cacheDirectory } from "./cache_directory.ts";
import { outputOf, run } from "./command.ts";
import { installPackage } from "./packages.ts";
import { downloadPackages } from "./private_apt.ts";

/** The variable that leads the library, and so the tests, to what this script has built. */
export const QPL_VARIABLE = "MULTIFD_LIBQPL";

const soname = "libqpl.so.1";

/** What a C library before 2.38 lacks: strtol() and strtoll() that also know binary numbers. */
const shimSource = `
#include <stdlib.h>
long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) { return strtoll(text, end, base); }
`;

/**
 * Prints what it did; never throws, since without QPL only its own tests are skipped.
 *
 * @returns what to set {@linkcode QPL_VARIABLE} to; undefined when the machine has QPL itself or
 * cannot have it
 */
export async function prepareQpl(): Promise<string | undefined> {
  const given = process.env[QPL_VARIABLE];
  if (given !== undefined) {
    console.log(`${QPL_VARIABLE} is set: ${given}`);
    return given;
  }
  const known = await outputOf(["/sbin/ldconfig", "-p"]);
  if (known?.includes(`${soname} `) === true) {
    console.log("installed");
    return undefined;
  }
  if (await installPackage("libqpl1")) return undefined;
  const cache = cacheDirectory();
  const library = join(cache, soname);
  if (existsSync(library)) {
    console.log(`built before: ${library}`);
    return library;
  }
  const directory = mkdtempSync(join(tmpdir(), "multifd-qpl-"));
  try {
    const built = await build(directory);
    if (built === undefined) return undefined;
    mkdirSync(cache, { recursive: true });
    // Under its final name only when complete: two runs may do this at once.
    const complete = join(cache, `${soname}.${process.pid}`);
    await Bun.write(complete, Bun.file(built));
    renameSync(complete, library);
    console.log(`built: ${library}`);
    return library;
  } catch (error) {
    console.log(`Cannot build QPL: ${String(error)}`);
    return undefined;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Path of the library built in `directory`, or undefined after a message that says why not. */
async function build(directory: string): Promise<string | undefined> {
  const architecture = (await outputOf(["dpkg", "--print-architecture"]))?.trim();
  if (architecture !== "amd64" || Bun.which("gcc") === null) {
    console.log(
      `Cannot build QPL: this is ${architecture ?? "not a Debian"} ` +
        `${Bun.which("gcc") === null ? "without" : "with"} gcc, must be amd64 with gcc`,
    );
    return undefined;
  }
  const [archive] =
    (await downloadPackages(directory, {
      suite: "sid",
      packageName: "libqpl-dev",
      withDependencies: false,
    })) ?? [];
  if (archive === undefined) return undefined;
  if ((await run(["dpkg-deb", "--extract", archive, directory])) !== 0) return undefined;

  const staticLibrary = join(directory, "usr/lib/x86_64-linux-gnu/libqpl.a");
  const shim = join(directory, "shim.c");
  const library = join(directory, soname);
  writeFileSync(shim, shimSource);
  const linked = await run([
    "gcc",
    "-O2",
    "-fPIC",
    "-shared",
    "-o",
    library,
    `-Wl,-soname,${soname}`,
    shim,
    "-Wl,--whole-archive",
    staticLibrary,
    "-Wl,--no-whole-archive",
    // By file name, since the linker's own names come with a C++ compiler only.
    "-l:libstdc++.so.6",
    "-l:libgcc_s.so.1",
    "-ldl",
    "-lm",
  ]);
  if (linked === 0) return library;
  console.log("Cannot build QPL: linking failed, see the messages above");
  return undefined;
}

if (import.meta.main) {
  const path = await prepareQpl();
  if (path !== undefined) console.log(`export ${QPL_VARIABLE}=${path}`);
}
