/**
 * Reads the machine's own apt sources and derives from them private ones that also have the
 * backports suite. The mirror is never named here: a machine behind a local mirror or a proxy
 * reaches only that, and only its own configuration knows it.
 */

/** One entry of an apt configuration, as far as package installation is concerned. */
export interface AptSource {
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
  const ofRelease = sources.filter(
    (source) =>
      source.components.includes("main") && source.suites.some((suite) => names.includes(suite)),
  );
  // Other vendors name their suites after the release too, but only Debian's mirrors have -updates.
  const updated = new Set(
    sources
      .filter((source) => source.suites.some((suite) => suite.endsWith("-updates")))
      .flatMap((source) => source.uris),
  );
  const mirror =
    ofRelease.find((source) => source.uris.some((uri) => updated.has(uri))) ?? ofRelease[0];
  if (mirror === undefined) return undefined;

  const security = sources.filter((source) =>
    source.suites.some((suite) => suite === `${codename}-security`),
  );
  const suites = [codename, `${codename}-backports`];
  if (mirror.uris.some((uri) => updated.has(uri))) suites.push(`${codename}-updates`);
  return [{ ...mirror, suites }, ...security].map(formatDeb822).join("\n");
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
