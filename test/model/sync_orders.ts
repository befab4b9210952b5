/**
 * The receive side at its sync points as a small model (engine description, section 2), whose every
 * schedule is looked at: two channels and the main thread each read their own connection, and nothing
 * but the sync points says in which order. Where those points are is decided by the library's own
 * class; the rest restates, in one page, what threads and semaphores do.
 *
 * Names as in the code: `syncReached`, `released`, `closing`, `hasUnsyncedPages`.
 *
 * @module
 */
import { SyncPoints, type SyncMode } from "../../lib/wire/sync_points.ts";

/** A packet with one page, or a SYNC. */
type ChannelToken = { readonly page: string; readonly version: number } | "SYNC";
/** A marker, the end of a RAM section, or the end of the stream. */
export type MainToken = "MARKER" | "EOS" | "END";

/** What a source sends: the tokens of each connection in their order. */
export interface Source {
  readonly main: readonly MainToken[];
  readonly channels: readonly (readonly ChannelToken[])[];
}

/** What all schedules of one source can lead to. */
interface Outcomes {
  /** Different memories that were confirmed, as text. */
  readonly confirmed: ReadonlySet<string>;
  /** Why nothing was confirmed in others. */
  readonly errors: ReadonlySet<string>;
  readonly states: number;
}

interface State {
  readonly main: number;
  readonly points: number;
  readonly channels: readonly {
    readonly at: number;
    readonly stands: boolean;
    readonly syncs: number;
    readonly hasUnsyncedPages: boolean;
  }[];
  readonly memory: Readonly<Record<string, number>>;
}

/**
 * A source that keeps the rules for `rounds` rounds: both channels write page X in turn, so that a
 * page of a later round that is placed too early, or too late, shows; each has a page of its own too.
 */
export function orderlySource(mode: SyncMode, rounds: number): Source {
  const section: readonly MainToken[] = mode === "round" ? ["MARKER", "EOS"] : ["EOS"];
  const channels: ChannelToken[][] = [["SYNC"], ["SYNC"]];
  const main = [...section];
  for (let version = 1; version <= rounds; version++) {
    channels[version % 2]?.push({ page: "X", version });
    for (const [index, channel] of channels.entries()) {
      channel.push({ page: `own ${index}`, version }, "SYNC");
    }
    main.push(...section);
  }
  return { main: [...main, "END"], channels };
}

/** The memory a source means: of each page what it sent last. */
export function meantMemory({ channels }: Source): string {
  const memory: Record<string, number> = {};
  for (const token of channels.flat()) {
    if (token === "SYNC") continue;
    memory[token.page] = Math.max(memory[token.page] ?? 0, token.version);
  }
  return textOf(memory);
}

/** Goes through every schedule. */
export function explore(source: Source): Outcomes {
  const syncPoints = new SyncPoints();
  const isSyncPoint = source.main.map((token) => {
    if (token === "MARKER") syncPoints.marker();
    return token === "MARKER" || (token === "EOS" && syncPoints.sectionEnd());
  });
  const confirmed = new Set<string>();
  const errors = new Set<string>();
  const seen = new Set<string>();
  const start = { at: 0, stands: false, syncs: 0, hasUnsyncedPages: false };
  const open: State[] = [
    { main: 0, points: 0, channels: source.channels.map(() => start), memory: {} },
  ];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    const key = JSON.stringify(state);
    if (seen.has(key)) continue;
    seen.add(key);
    if (source.main[state.main] === "END") {
      const error = endError(source, state);
      if (error === undefined) confirmed.add(textOf(state.memory));
      else errors.add(error);
      continue;
    }
    const next = steps(source, isSyncPoint, state);
    if (next.length === 0) errors.add("a sync point or the end is never reached");
    open.push(...next);
  }
  return { confirmed, errors, states: seen.size };
}

function steps(source: Source, isSyncPoint: readonly boolean[], state: State): State[] {
  const next: State[] = [];
  if (state.main < source.main.length) {
    if (isSyncPoint[state.main] !== true) next.push({ ...state, main: state.main + 1 });
    else if (state.channels.every(({ stands }) => stands)) {
      // `syncReached` of all channels is taken, then `released` of all is posted.
      const channels = state.channels.map((channel) => ({ ...channel, stands: false }));
      next.push({ ...state, main: state.main + 1, points: state.points + 1, channels });
    }
  }
  for (const [index, channel] of state.channels.entries()) {
    const token = source.channels[index]?.[channel.at];
    if (channel.stands || token === undefined) continue;
    const at = channel.at + 1;
    const moved =
      token === "SYNC"
        ? { at, stands: true, syncs: channel.syncs + 1, hasUnsyncedPages: false }
        : { ...channel, at, hasUnsyncedPages: true };
    const memory =
      token === "SYNC" ? state.memory : { ...state.memory, [token.page]: token.version };
    next.push({ ...state, channels: state.channels.with(index, moved), memory });
  }
  return next;
}

/** What `endChannels()` finds; all that a source sends has arrived when its END has. */
function endError(source: Source, state: State): string | undefined {
  for (const [index, channel] of state.channels.entries()) {
    if (channel.syncs > state.points) return "a channel stands behind the end";
    if (channel.at < (source.channels[index]?.length ?? 0)) return "a channel has another packet";
    if (channel.hasUnsyncedPages) return "a channel has pages that no SYNC covers";
  }
  return undefined;
}

function textOf(memory: Readonly<Record<string, number>>): string {
  const pages = Object.entries(memory).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return pages.map(([page, version]) => `${page}: ${version}`).join(", ");
}
