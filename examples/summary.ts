/**
 * What a program says at its end: a few lines for people, or one JSON object for scripts.
 *
 * @module
 */
import type { MultifdError, Statistics } from "../mod.ts";
import { library } from "./library.ts";
import { formatBytes, formatRate, formatSeconds } from "./units.ts";

/** Facts beside the statistics, for example `{ role: "sender", verified: true }`. */
export type SummaryFacts = Readonly<
  Record<string, string | number | boolean | null | readonly unknown[] | object>
>;

/** Prints the result of a transfer to stdout. The JSON object has `ok: true` and all statistics. */
export function printSummary(json: boolean, facts: SummaryFacts, statistics: Statistics): void {
  if (json) console.log(JSON.stringify({ ok: true, ...facts, ...statistics }));
  else console.log(summaryLines(statistics).join("\n"));
}

/** Prints the JSON object of a failed transfer to stdout, `ok: false` and the error's parts. */
export function printFailure(facts: SummaryFacts, error: unknown, statistics?: Statistics): void {
  const { code, side, channel, phase, errno, peer }: Partial<MultifdError> =
    error instanceof library().MultifdError ? error : {};
  const message = error instanceof Error ? error.message : String(error);
  const parts = {
    code,
    message,
    side,
    channel,
    phase,
    errno,
    peer,
    text: library().describeError(error),
  };
  console.log(JSON.stringify({ ok: false, ...facts, error: parts, ...statistics }));
}

/** Prints one JSON object as a line of its own, before the last one. */
export function printEvent(event: object): void {
  console.log(JSON.stringify(event));
}

/** Says where a program listens, which a script needs to know where the port was any free one. */
export function printListening(json: boolean, endpoint: string): void {
  if (json) printEvent({ listening: endpoint });
  else console.error(`listening on ${endpoint}`);
}

/** The statistics in words. */
export function summaryLines(statistics: Statistics): string[] {
  const { elapsedMs, ramBytes, pageBytes, wireBytes, normalPages, zeroPages } = statistics;
  const { rounds, switchoverMs, tls, channels } = statistics;
  const elapsed = elapsedMs / 1000;
  return [
    `memory     ${formatBytes(ramBytes)} in ${formatSeconds(elapsed)}, ${formatRate(pageBytes / elapsed)}`,
    `wire       ${formatBytes(wireBytes)}, ratio ${(pageBytes / wireBytes).toFixed(2)}`,
    `pages      ${normalPages} normal, ${zeroPages} zero${rounds > 1 ? `, ${rounds} rounds` : ""}`,
    ...(switchoverMs > 0 ? [`switchover ${formatSeconds(switchoverMs / 1000)}`] : []),
    ...(tls === undefined ? [] : [`encrypted  ${tls.protocol}, ${tls.suite} by ${tls.library}`]),
    ...channels.map(
      ({ bytes, packets, idleMs, engine, level }, channel) =>
        `channel ${String(channel).padEnd(3)}${formatBytes(bytes)} in ${packets} packets, ` +
        `idle ${formatSeconds(idleMs / 1000)}` +
        `${engine === undefined ? "" : `, ${engine}`}${level === undefined ? "" : ` level ${level}`}`,
    ),
  ];
}

/** Prints rows as columns: the first to the left, the others to the right. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  // A row with fewer cells is a remark, which makes no column wider.
  const full = [header, ...rows.filter((row) => row.length === header.length)];
  const widths = header.map((_, column) =>
    Math.max(...full.map((row) => Bun.stringWidth(row[column] ?? ""))),
  );
  for (const row of [header, ...rows]) {
    const cells = row.map((cell, column) => {
      const width = widths[column] ?? 0;
      if (column === 0) return cell.padEnd(width);
      return row.length === header.length ? cell.padStart(width) : cell;
    });
    console.log(cells.join("  ").trimEnd());
  }
}
