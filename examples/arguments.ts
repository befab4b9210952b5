/**
 * Command line arguments of the programs in this directory: one table of options that all transfers
 * share, and functions that turn texts into checked values. Whatever is wrong with an argument is a
 * {@linkcode UsageError}, which `runProgram()` turns into exit status 2.
 *
 * @module
 */
import { parseArgs, type ParseArgsConfig } from "node:util";
import type {
  Compression,
  CompressionMethod,
  EngineName,
  SessionOptions,
  Timeouts,
} from "../mod.ts";
import { library } from "./library.ts";
import { TLS_OPTIONS, TLS_USAGE, tlsOptions, type ArgumentValues } from "./tls_arguments.ts";
import { invalid, UsageError } from "./usage_error.ts";

export { UsageError };

/** The user asked for the usage text. */
export class HelpRequest extends Error {
  override readonly name = "HelpRequest";
}

// The library, which has these lists too, is not loaded for a usage text; the compiler compares them.
const METHODS = namesIn<CompressionMethod>({
  none: true,
  zlib: true,
  zstd: true,
  qpl: true,
  uadk: true,
  qatzip: true,
});
const ENGINES = namesIn<EngineName>({
  libz: true,
  isal: true,
  libdeflate: true,
  libzstd: true,
  libqpl: true,
});

function namesIn<Name extends string>(all: Readonly<Record<Name, true>>): readonly Name[] {
  return Object.keys(all) as Name[];
}

/** Options of every program that transfers something, for `parseProgramArguments()`. */
export const TRANSFER_OPTIONS = {
  channels: { type: "string" },
  compression: { type: "string" },
  level: { type: "string" },
  engine: { type: "string" },
  uuid: { type: "string" },
  "connect-timeout": { type: "string" },
  "idle-timeout": { type: "string" },
  "stall-timeout": { type: "string" },
  ...TLS_OPTIONS,
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsConfig["options"];

/** What {@linkcode TRANSFER_OPTIONS} mean, for usage texts. */
export const TRANSFER_USAGE = `\
  --channels N|auto        multifd channels, 1 to 255, equal on both sides (default 2);
                           auto: twice the processors on a sender, whatever connects on a receiver
  --compression METHOD     ${METHODS.join(", ")}; equal on both sides (default none)
  --level N|auto           compression level of the sender (default 1); auto: as high as the
                           processor can while the network is busy
  --engine NAME            library that compresses: ${ENGINES.join(", ")}
                           (default: the fastest that is there; each side has its own)
  --uuid UUID              uuid of the VM, equal on both sides (default all zero)
  --connect-timeout SECS   for one connection, and from the first to the last one (default 10)
  --idle-timeout SECS      without any data (default 300)
  --stall-timeout SECS     without a byte in the middle of a packet (default 30)
${TLS_USAGE}
  --json                   last line of stdout: one JSON object with the final statistics
  -h, --help               this text`;

/** Values of {@linkcode TRANSFER_OPTIONS} as `parseProgramArguments()` returns them. */
export type TransferValues = ArgumentValues<typeof TRANSFER_OPTIONS>;

/**
 * Parses the program's arguments; positional ones are refused.
 *
 * @throws {UsageError} for an unknown option or a missing value.
 * @throws {HelpRequest} when `--help` is among them.
 */
export function parseProgramArguments<
  const Options extends NonNullable<ParseArgsConfig["options"]>,
>(options: Options, args: readonly string[] = process.argv.slice(2)) {
  // Help is wanted most when something else is wrong.
  if (args.includes("--help") || args.includes("-h")) throw new HelpRequest();
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** The session options behind {@linkcode TRANSFER_OPTIONS}, all but the endpoint. */
export function sessionOptions(
  values: TransferValues,
  acceptTimeout?: string,
): Omit<SessionOptions, "endpoint" | "signal"> {
  const timeouts: { -readonly [Name in keyof Timeouts]?: number } = {};
  const limits = [
    ["connectMs", "connect-timeout", values["connect-timeout"]],
    ["acceptMs", "accept-timeout", acceptTimeout],
    ["idleMs", "idle-timeout", values["idle-timeout"]],
    ["stallMs", "stall-timeout", values["stall-timeout"]],
  ] as const;
  for (const [name, option, text] of limits) {
    if (text !== undefined) timeouts[name] = seconds(`--${option}`, text) * 1000;
  }
  return {
    channels: channelCount(values.channels),
    compression: compression(values.compression, values.level, values.engine),
    uuid: values.uuid,
    timeouts,
    tls: tlsOptions(values),
  };
}

/** Options of the programs that listen and keep in files what comes. */
export const RECEIVING_OPTIONS = {
  ...TRANSFER_OPTIONS,
  listen: { type: "string" },
  output: { type: "string" },
  "page-size": { type: "string" },
  "accept-timeout": { type: "string" },
  "ram-max": { type: "string" },
} as const satisfies ParseArgsConfig["options"];

/** The options of a listening session behind {@linkcode RECEIVING_OPTIONS}. */
export function receivingOptions(values: ArgumentValues<typeof RECEIVING_OPTIONS>) {
  const ramMax = values["ram-max"];
  return {
    ...sessionOptions(values, values["accept-timeout"]),
    endpoint: endpoint("--listen", values.listen),
    pageSize: pageSize(values["page-size"]),
    ramBytesMax: ramMax === undefined ? undefined : byteCount("--ram-max", ramMax),
  };
}

/** `--channels`: a number from 1 to 255, or `auto`. */
export function channelCount(text = "2"): number | "auto" {
  return text === "auto" ? "auto" : wholeNumber("--channels", text, 1, 255);
}

/**
 * `--compression`, `--level` and `--engine`; whether the method has that level and the engine speaks
 * the method is for the library to say.
 */
export function compression(
  methodText = "none",
  levelText?: string,
  engineText?: string,
): Compression {
  const method = oneOf("--compression", methodText, METHODS);
  const level = levelText === undefined ? undefined : levelOf(levelText);
  const engine = engineText === undefined ? undefined : oneOf("--engine", engineText, ENGINES);
  return {
    method,
    ...(level === undefined ? {} : { level }),
    ...(engine === undefined ? {} : { engine }),
  };
}

function levelOf(text: string): number | "auto" {
  if (text === "auto") return text;
  if (!/^-?\d+$/.test(text)) throw invalid("--level", text, "a whole number or auto");
  return Number(text);
}

/** `--listen` or `--connect`; the text itself, once it is known to be an endpoint. */
export function endpoint(option: string, text: string | undefined): string {
  const value = required(option, text);
  try {
    library().parseEndpoint(value);
  } catch {
    throw invalid(option, value, "host:port, [v6]:port, unix:/path or unix-abstract:name");
  }
  return value;
}

/** The values of `--block idstr=file`. The id ends at the first `=`. */
export function blockArguments(texts: readonly string[] = []): { idstr: string; path: string }[] {
  if (texts.length === 0) throw new UsageError("Missing --block, at least one is needed");
  const blocks = texts.map((text) => {
    const at = text.indexOf("=");
    const idstr = text.slice(0, at);
    const path = text.slice(at + 1);
    const idBytes = new TextEncoder().encode(idstr).byteLength;
    if (at < 1 || path === "") throw invalid("--block", text, "idstr=file");
    if (idBytes > 255) throw invalid("--block", text, "an id of at most 255 bytes");
    return { idstr, path };
  });
  const names = new Set(blocks.map(({ idstr }) => idstr));
  if (names.size < blocks.length) throw new UsageError("Two --block have the same id");
  return blocks;
}

const PAGE_SIZES = ["4096", "8192", "16384", "65536", "4K", "8K", "16K", "64K"] as const;

/** `--page-size` in bytes: 4, 8, 16 or 64 KiB. */
export function pageSize(text = "4096"): number {
  return byteCount("--page-size", oneOf("--page-size", text, PAGE_SIZES));
}

const SUFFIXES = ["", "K", "M", "G", "T"];

/** A number of bytes, 0 or more; K, M, G and T are powers of 1024. */
export function byteCount(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)$/i.exec(text);
  const power = SUFFIXES.indexOf((match?.[2] ?? "").toUpperCase());
  const bytes = Number(match?.[1]) * 1024 ** power;
  if (match === null || !Number.isSafeInteger(Math.round(bytes))) {
    throw invalid(option, text, "bytes, with K, M, G or T for powers of 1024");
  }
  return Math.round(bytes);
}

/** A whole number within bounds. */
export function wholeNumber(
  option: string,
  text: string,
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) {
    const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
    throw invalid(option, text, `a whole number, ${range}`);
  }
  return value;
}

/** A duration in seconds above 0; decimals are allowed. */
export function seconds(option: string, text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || !(value > 0)) {
    throw invalid(option, text, "seconds, more than 0");
  }
  return value;
}

/** One of the given words. */
export function oneOf<const Word extends string>(
  option: string,
  text: string,
  words: readonly Word[],
): Word {
  const found = words.find((word) => word === text);
  if (found === undefined) throw invalid(option, text, `one of ${words.join(", ")}`);
  return found;
}

/** An argument that cannot be left out. */
export function required(option: string, text: string | undefined): string {
  if (text === undefined || text === "") throw new UsageError(`Missing ${option}`);
  return text;
}

/**
 * Waits for a call into the library whose options come from the command line: what it refuses as
 * impossible, the user has typed.
 */
export async function fromArguments<Result>(call: Promise<Result>): Promise<Result> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) {
      throw new UsageError(error.message);
    }
    throw error;
  }
}
