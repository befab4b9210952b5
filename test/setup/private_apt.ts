/**
 * Downloads Debian packages of any suite without touching the machine: package lists, cache and
 * state are in a folder of the caller, and no package counts as installed. Needs no root.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { machineSources, suiteSources } from "./apt_sources.ts";
import { run } from "./command.ts";

/** What to download, and from where. */
interface Download {
  readonly suite: string;
  readonly packageName: string;
  /** Also everything that it depends on. */
  readonly withDependencies: boolean;
}

/**
 * Downloads packages into `directory`, which the caller removes.
 *
 * @returns paths of the package files, or undefined after a message that says why not
 */
export async function downloadPackages(
  directory: string,
  { suite, packageName, withDependencies }: Download,
): Promise<string[] | undefined> {
  const sources = suiteSources(machineSources(), suite);
  if (sources === undefined) {
    console.log(`Cannot download ${packageName}: apt's sources name no Debian mirror`);
    return undefined;
  }
  for (const name of ["sources", "lists/partial", "cache/archives/partial", "files"]) {
    mkdirSync(join(directory, name), { recursive: true });
  }
  writeFileSync(join(directory, `sources/${suite}.sources`), sources);
  const apt = [
    "apt-get",
    // Errors only: a line for each of a hundred packages helps nobody.
    "--quiet=2",
    "--option=Acquire::http::Timeout=30",
    "--option=Acquire::Retries=1",
    "--option=Acquire::Languages=none",
    "--option=Dir::Etc::SourceList=/dev/null",
    `--option=Dir::Etc::SourceParts=${join(directory, "sources")}`,
    `--option=Dir::State::Lists=${join(directory, "lists")}`,
    // Nothing counts as installed, so that every dependency is downloaded.
    "--option=Dir::State::status=/dev/null",
    `--option=Dir::Cache=${join(directory, "cache")}`,
    // apt would download as another user, who has no business in this folder.
    "--option=APT::Sandbox::User=root",
    // The machine's own lock is not ours to take.
    "--option=Debug::NoLocking=1",
  ];
  const files = join(directory, "files");
  const download = withDependencies
    ? [
        "install",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        `--option=Dir::Cache::archives=${files}`,
      ]
    : ["download"];
  const status =
    (await run([...apt, "update", "--error-on=any"])) ||
    (await run([...apt, ...download, packageName], { cwd: files }));
  const found = status === 0 ? [...new Bun.Glob("*.deb").scanSync(files)] : [];
  if (found.length > 0) return found.map((file) => join(files, file));
  console.log(
    `Cannot download ${packageName}: apt reported the errors above, ` +
      `the machine's Debian mirror must be reachable and have the suite ${suite}`,
  );
  return undefined;
}
