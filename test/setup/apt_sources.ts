/**
 * Reads the machine's own apt sources and derives from them private ones that have other suites of
 * the same mirror. The mirror is never named here: a machine behind a local mirror or a proxy
 * reaches only that, and only its own configuration knows it.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One entry of an apt configuration, as far as package installation is concerned. */
interface AptSource {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** A key file's path or a whole key; taken over as it is. */
  readonly signedBy?: string;
}

/** Parses the one-line format of /etc/apt/sources.list and *.list files. */
export function parseOneLineSources(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?([a-z+]+:\/\S+)\s+(\S+)([^#]*)/.exec(line);
    if (match === null) continue;
    const [, options = "", uri = "", suite = "", components = ""] = match;
    const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(options)?.[1];
    sources.push({
      uris: [uri],
      suites: [suite],
      components: words(components),
      ...(signedBy === undefined ? {} : { signedBy }),
    });
  }
  return sources;
}

/** Parses the deb822 format of *.sources files. */
export function parseDeb822Sources(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.replaceAll(/^#.*\n?/gm, "").split(/\n\s*\n/)) {
    const fields = new Map<string, string>();
    for (const match of stanza.matchAll(/^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)/gm)) {
      fields.set((match[1] ?? "").toLowerCase(), match[2] ?? "");
    }
    const enabled = (fields.get("enabled") ?? "yes").trim().toLowerCase() !== "no";
    const signedBy = fields.get("signed-by");
    if (!enabled || !words(fields.get("types")).includes("deb")) continue;
    sources.push({
      uris: words(fields.get("uris")),
      suites: words(fields.get("suites")),
      components: words(fields.get("components")),
      ...(signedBy === undefined ? {} : { signedBy }),
    });
  }
  return sources;
}

/** All sources of this machine's apt configuration. */
export function machineSources(): AptSource[] {
  const sources: AptSource[] = [];
  const listFile = "/etc/apt/sources.list";
  const partsDirectory = `${listFile}.d`;
  for (const path of [listFile, ...entries(partsDirectory)]) {
    if (path.endsWith(".list")) sources.push(...parseOneLineSources(readText(path)));
    if (path.endsWith(".sources")) sources.push(...parseDeb822Sources(readText(path)));
  }
  return sources;
}

/**
 * Finds the machine's Debian mirror for a release and describes it with the backports suite added,
 * since packages from backports depend on packages of the release itself.
 *
 * @returns the text of a *.sources file, or undefined when no source offers the release
 */
export function backportsSources(
  sources: readonly AptSource[],
  codename: string,
): string | undefined {
  const names = [codename, "stable", "oldstable"];
  const updated = updatedUris(sources);
  const mirror = preferred(
    sources.filter(
      (source) =>
        source.components.includes("main") && source.suites.some((suite) => names.includes(suite)),
    ),
    updated,
  );
  if (mirror === undefined) return undefined;

  const security = sources.filter((source) =>
    source.suites.some((suite) => suite === `${codename}-security`),
  );
  const suites = [codename, `${codename}-backports`];
  if (mirror.uris.some((uri) => updated.has(uri))) suites.push(`${codename}-updates`);
  return [{ ...mirror, suites }, ...security].map(formatDeb822).join("\n");
}

/**
 * Describes any suite of the machine's Debian mirror.
 *
 * @returns the text of a *.sources file, or undefined when no source is a Debian mirror
 */
export function suiteSources(sources: readonly AptSource[], suite: string): string | undefined {
  const updated = updatedUris(sources);
  const mirrors = sources.filter((source) => source.uris.some((uri) => updated.has(uri)));
  const own = sources.filter((source) => source.suites.includes(suite));
  const mirror = preferred([...own, ...mirrors], updated);
  if (mirror === undefined) return undefined;
  return formatDeb822({ ...mirror, suites: [suite], components: ["main"] });
}

/** Other vendors name their suites after releases too, but only Debian's mirrors have -updates. */
function updatedUris(sources: readonly AptSource[]): ReadonlySet<string> {
  return new Set(
    sources
      .filter((source) => source.suites.some((suite) => suite.endsWith("-updates")))
      .flatMap((source) => source.uris),
  );
}

function preferred(
  sources: readonly AptSource[],
  updated: ReadonlySet<string>,
): AptSource | undefined {
  return sources.find((source) => source.uris.some((uri) => updated.has(uri))) ?? sources[0];
}

function formatDeb822(source: AptSource): string {
  const lines = [
    "Types: deb",
    `URIs: ${source.uris.join(" ")}`,
    `Suites: ${source.suites.join(" ")}`,
    `Components: ${source.components.join(" ")}`,
  ];
  if (source.signedBy !== undefined) lines.push(`Signed-By: ${source.signedBy}`);
  return `${lines.join("\n")}\n`;
}

function words(text = ""): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory)
      .toSorted()
      .map((name) => join(directory, name));
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
