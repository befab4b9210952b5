/**
 * The settings of every benchmark, declared once with their defaults, from which come the parser, its
 * messages and `--help`.
 *
 * @module
 */

import { parseArgs } from "node:util";

/** One setting; its option is the name in the declaration in kebab-case. */
export interface Setting<Value> {
  /** What stands for the value in the usage; absent for one that is there or not. */
  readonly placeholder?: string | undefined;
  readonly help: string;
  readonly fallback: Value;
  /** @throws {Error} With what the value must be. */
  parse(this: void, text: string): Value;
}

/** Settings by name. */
export type Declaration = Readonly<Record<string, Setting<unknown>>>;

/** What a declaration gives. */
export type Values<D extends Declaration> = {
  readonly [Name in keyof D]: D[Name] extends Setting<infer Value> ? Value : never;
};

/** Any text. */
export function text(fallback: string, help = "", placeholder = "FILE"): Setting<string> {
  return { placeholder, help, fallback, parse: (value) => value };
}

/** An integer of at least `least`. */
export function count(fallback: number, help = "", least = 0, most = Infinity): Setting<number> {
  return { placeholder: "N", help, fallback, parse: (value) => integer(value, least, most) };
}

/** Several of them, separated by commas. */
function list<Value>(one: Setting<Value>, fallback: readonly Value[]): Setting<readonly Value[]> {
  const parse = (value: string): Value[] => value.split(",").map((part) => one.parse(part));
  return { placeholder: "LIST", help: one.help, fallback, parse };
}

/** A list of integers. */
export function counts(
  fallback: readonly number[],
  help: string,
  least: number,
  most: number,
): Setting<readonly number[]> {
  return list(count(0, help, least, most), fallback);
}

/** One of some words. */
export function choice<Word extends string>(
  words: readonly Word[],
  fallback: Word,
  help: string,
  placeholder = "METHOD",
): Setting<Word> {
  return { placeholder, help, fallback, parse: (value) => oneOf(words, value) };
}

/** A list of some words. */
export function choices<Word extends string>(
  words: readonly Word[],
  fallback: readonly Word[],
  help: string,
): Setting<readonly Word[]> {
  return list(choice(words, words[0]!, help), fallback);
}

/** Something that is there or not. */
export function flag(help = ""): Setting<boolean> {
  return { help, fallback: false, parse: () => true };
}

/** A setting without a default: undefined where it is left out. */
export function optional<Value>(setting: Setting<Value>): Setting<Value | undefined> {
  return { ...setting, fallback: undefined };
}

/** What all benchmarks have. */
export const json = flag("print one JSON object as the last line of stdout");

/** Wrong arguments: told with the usage, exit 2. */
class UsageError extends Error {}

/**
 * Reads the program's arguments.
 *
 * @throws {Error} With a message for the user.
 */
function readSettings<D extends Declaration>(declaration: D, args: readonly string[]): Values<D> {
  const names = new Map(Object.keys(declaration).map((name) => [optionOf(name), name]));
  const typeOf = (name: string): "boolean" | "string" =>
    declaration[name]?.placeholder === undefined ? "boolean" : "string";
  const options = Object.fromEntries(
    [...names].map(([option, name]) => [option, { type: typeOf(name) }]),
  );
  const values = Object.fromEntries(
    Object.entries(declaration).map(([name, { fallback }]) => [name, fallback]),
  );
  let found: ReturnType<typeof parseArgs>["values"];
  try {
    found = parseArgs({ args: [...args], options }).values;
  } catch (error) {
    throw new UsageError(messageOf(error), { cause: error });
  }
  for (const [option, value] of Object.entries(found)) {
    const name = names.get(option)!;
    try {
      values[name] = declaration[name]?.parse(String(value));
    } catch (error) {
      const why = messageOf(error);
      throw new UsageError(`Cannot use --${option} ${String(value)}: ${why}`, { cause: error });
    }
  }
  return values as Values<D>;
}

/** Runs a benchmark as a program: `--help`, its settings, one line for a failure, the exit status. */
export async function runBenchmark<D extends Declaration>(
  file: string,
  declaration: D,
  main: (settings: Values<D>) => Promise<void>,
): Promise<never> {
  const args = process.argv.slice(2);
  try {
    if (args.includes("--help") || args.includes("-h")) console.log(usage(file, declaration));
    else await main(readSettings(declaration, args));
    process.exit(0);
  } catch (error) {
    const misused = error instanceof UsageError;
    console.error(misused ? `${error.message}\n${usage(file, declaration)}` : messageOf(error));
    process.exit(misused ? 2 : 1);
  }
}

function usage(file: string, declaration: Declaration): string {
  const rows = Object.entries(declaration).map(([name, { placeholder, help, fallback }]) => {
    const standard = Array.isArray(fallback) ? fallback.join(",") : JSON.stringify(fallback);
    const left = `  --${optionOf(name)}${placeholder === undefined ? "" : ` ${placeholder}`}`;
    const isTold = placeholder === undefined || fallback === undefined || help.includes("default");
    return [left, isTold ? help : `${help} (default: ${standard})`.trim()] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length));
  const lines = rows.map(([left, help]) => `${left.padEnd(width)}  ${help}`);
  return [`Usage: bun bench/${file}.ts [options]`, ...lines].join("\n");
}

function optionOf(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function integer(value: string, least: number, most: number): number {
  const number = Number(value);
  if (value !== "" && Number.isInteger(number) && number >= least && number <= most) return number;
  throw new Error(`must be an integer from ${least}${most === Infinity ? "" : ` to ${most}`}`);
}

function oneOf<Word extends string>(words: readonly Word[], value: string): Word {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new Error(`must be one of ${words.join(", ")}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
