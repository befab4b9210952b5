/**
 * What the sub-commands of the snapshot tool have in common: their arguments, their files, and how
 * they report progress and results.
 *
 * @module
 */
import { parseArgs, type ParseArgsConfig } from "node:util";
import { openSnapshot, parseFileUri, type Snapshot, type OpenSnapshotOptions } from "../../mod.ts";
import { HelpRequest, UsageError } from "../arguments.ts";
import { ProgressBar, type ProgressCounters } from "../progress.ts";
import { formatBytes } from "../units.ts";

/** A sub-command. */
export interface SnapshotCommand {
  /** One line behind the command's name. */
  readonly summary: string;
  readonly usage: string;
  /** Runs with the arguments behind the command's name; returns what `--json` prints. */
  run(args: readonly string[], signal: AbortSignal): Promise<CommandResult>;
}

/** What a command has to say. */
export interface CommandResult {
  readonly json: boolean;
  /** The JSON object, without `ok`. */
  readonly facts: object;
  /** The same for people, one line each. */
  readonly lines: readonly string[];
  /** Exit status 1 with the output still printed: for comparisons that found differences. */
  readonly failed?: boolean;
}

/** Options of every command. */
export const COMMON_OPTIONS = {
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsConfig["options"];

/**
 * Parses the arguments of a command.
 *
 * @param names What the positional arguments are called; all must be there.
 */
export function parseCommand<const Options extends NonNullable<ParseArgsConfig["options"]>>(
  args: readonly string[],
  names: readonly string[],
  options: Options,
) {
  if (args.includes("--help") || args.includes("-h")) throw new HelpRequest();
  let parsed;
  try {
    parsed = parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  const { values, positionals } = parsed;
  if (positionals.length !== names.length) {
    const wanted = names.length === 0 ? "no file" : names.join(" ");
    throw new UsageError(
      `Cannot use ${positionals.length} arguments: must be ${wanted}, before or after options`,
    );
  }
  return { values, files: positionals };
}

/** Opens `PATH[,offset=N]`. */
export function openFileArgument(text: string | undefined): Promise<Snapshot> {
  const { path, offset } = fileArgument(text);
  return openSnapshot(path, { offset } satisfies OpenSnapshotOptions);
}

/** Splits `PATH[,offset=N]`. */
export function fileArgument(text = ""): { readonly path: string; readonly offset: number } {
  try {
    return parseFileUri(text);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Checks that a block is in the file; which blocks there are is the user's to know. */
export function blockArgument(file: Snapshot, idstr: string): string {
  try {
    return file.block(idstr).idstr;
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Lines about blocks that a file lacks; nobody shall take it for whole. */
export function sharedBlockLines(file: Snapshot): string[] {
  return file.index.sharedBlocks.map(
    ({ idstr, bytes }) =>
      `not in it  ${idstr}: ${formatBytes(bytes)} of shared memory that was left out`,
  );
}

/** A progress bar for work that counts bytes. */
export class ByteProgress implements Disposable {
  /** To be called with the bytes done so far and in all. */
  readonly report: (doneBytes: number, allBytes: number) => void;
  readonly #bar: ProgressBar;
  #done = 0;
  #all = 0;

  constructor(label: string) {
    this.report = (done, all) => {
      this.#done = done;
      this.#all = all;
    };
    this.#bar = new ProgressBar(label, () => this.#counters());
  }

  /** Shows 100 %. */
  complete(): void {
    this.#bar.complete();
  }

  [Symbol.dispose](): void {
    this.#bar[Symbol.dispose]();
  }

  #counters(): ProgressCounters {
    const [ramBytes, pageBytes] = [this.#all, this.#done];
    return { ramBytes, pageBytes, wireBytes: pageBytes, zeroPages: 0, channels: [] };
  }
}
