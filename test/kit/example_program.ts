/**
 * Runs the programs of examples/ as users do, as processes with a time limit of their own.
 *
 * @module
 */
import { join } from "node:path";
import { bun, repositoryRoot } from "../setup/command.ts";
import { LimitMs } from "./limits.ts";
import { Program, type ProgramEnd } from "./subprocess.ts";

/** How a program of examples/ ended. */
export interface ExampleEnd extends ProgramEnd {
  /** The last line of stdout as JSON; empty without one. */
  readonly result: Readonly<Record<string, unknown>>;
}

/** A running program of examples/. Disposing kills it. */
export class ExampleProgram extends Program {
  constructor(name: string, args: readonly string[]) {
    super([bun, join(repositoryRoot, "examples", `${name}.ts`), ...args], {
      timeoutMs: LimitMs.example,
    });
  }

  /** Where a receiver with `--json` listens. */
  async listening(): Promise<string> {
    const { listening } = JSON.parse(await this.firstLine()) as { listening?: string };
    if (listening === undefined) throw new Error(await this.firstLine());
    return listening;
  }

  override async end(): Promise<ExampleEnd> {
    const end = await super.end();
    const last = end.stdout.trimEnd().split("\n").at(-1) ?? "";
    const result = last.startsWith("{") ? (JSON.parse(last) as ExampleEnd["result"]) : {};
    return { ...end, result };
  }
}

/** Runs a program to its end. */
export async function runExample(name: string, args: readonly string[]): Promise<ExampleEnd> {
  await using program = new ExampleProgram(name, args);
  return await program.end();
}

/** Ends of the two sides of one transfer. */
interface TransferEnds {
  readonly receiver: ExampleEnd;
  readonly sender: ExampleEnd;
}

/** Runs a receiver and a sender to their ends; both get `common` as well. */
export async function transfer(
  receiverArgs: readonly string[],
  senderArgs: readonly string[],
  common: readonly string[] = [],
): Promise<TransferEnds> {
  const listen = receiverArgs.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
  await using receiver = new ExampleProgram("receiver", [
    ...listen,
    ...receiverArgs,
    ...common,
    "--json",
  ]);
  const connect = ["--connect", await receiver.listening()];
  const sender = await runExample("sender", [...connect, ...senderArgs, ...common, "--json"]);
  return { receiver: await receiver.end(), sender };
}

/**
 * A memory image: pages of text that compresses, random ones and zeros in turn, with a hole at the
 * end. Equal seeds give equal images.
 */
export function makeImage(bytes: number, seed = 1): Uint8Array {
  const image = new Uint8Array(bytes);
  const words = new Uint32Array(image.buffer);
  let state = seed;
  for (let page = 0; page < (bytes / 4096) * 0.75; page++) {
    const kind = (page * 7 + seed) % 4;
    if (kind === 0) continue;
    for (let word = page * 1024; word < (page + 1) * 1024; word++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      words[word] = kind === 1 ? state : state % 100;
    }
  }
  return image;
}

/** Whether two files have equal content. */
export async function filesEqual(left: string, right: string): Promise<boolean> {
  const [one, other] = await Promise.all([Bun.file(left).bytes(), Bun.file(right).bytes()]);
  return Buffer.compare(one, other) === 0;
}
