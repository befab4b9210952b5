/**
 * Runs the programs of examples/ as users do, as processes with a time limit of their own.
 *
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bun, repositoryRoot } from "../setup/command.ts";

/** Ends a program that hangs, so that the test fails and says which one. */
const LIMIT_MS = 45_000;

/** How a program ended. */
export interface ProgramEnd {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The last line of stdout as JSON; empty without one. */
  readonly result: Readonly<Record<string, unknown>>;
}

/** A running program of examples/. Disposing kills it. */
export class ExampleProgram implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #stderr: Promise<string>;
  readonly #watchdog: NodeJS.Timeout;
  #stdout = "";
  #reader: Promise<void>;
  #grown = Promise.withResolvers<void>();

  constructor(name: string, args: readonly string[]) {
    this.#child = Bun.spawn([bun, join(repositoryRoot, "examples", `${name}.ts`), ...args], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#watchdog = setTimeout(() => this.kill("SIGKILL"), LIMIT_MS);
    this.#stderr = this.#child.stderr.text();
    this.#reader = this.#read();
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Sends a signal. */
  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** The first complete line of stdout. */
  async firstLine(): Promise<string> {
    while (!this.#stdout.includes("\n")) {
      const ended = this.#reader.then(() => "ended" as const);
      if ((await Promise.race([this.#grown.promise, ended])) === "ended") break;
    }
    const [line = ""] = this.#stdout.split("\n");
    if (line === "") throw new Error(`The program printed nothing: ${await this.#stderr}`);
    return line;
  }

  /** Where a receiver with `--json` listens. */
  async listening(): Promise<string> {
    const { listening } = JSON.parse(await this.firstLine()) as { listening?: string };
    if (listening === undefined) throw new Error(await this.firstLine());
    return listening;
  }

  /** Waits for the end. */
  async end(): Promise<ProgramEnd> {
    const [status, stderr] = await Promise.all([this.#child.exited, this.#stderr, this.#reader]);
    clearTimeout(this.#watchdog);
    const last = this.#stdout.trimEnd().split("\n").at(-1) ?? "";
    const result = last.startsWith("{") ? (JSON.parse(last) as ProgramEnd["result"]) : {};
    return { status: this.#child.exitCode ?? status, stdout: this.#stdout, stderr, result };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#watchdog);
    if (this.#child.exitCode === null) this.kill("SIGKILL");
    await this.#child.exited;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stdout) {
      this.#stdout += decoder.decode(chunk, { stream: true });
      this.#grown.resolve();
      this.#grown = Promise.withResolvers<void>();
    }
  }
}

/** Runs a program to its end. */
export async function runExample(name: string, args: readonly string[]): Promise<ProgramEnd> {
  await using program = new ExampleProgram(name, args);
  return await program.end();
}

/** Ends of the two sides of one transfer. */
export interface TransferEnds {
  readonly receiver: ProgramEnd;
  readonly sender: ProgramEnd;
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

/** A directory of its own for a test, removed with all in it. */
export class TestDirectory implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<TestDirectory> {
    return new TestDirectory(await mkdtemp(join(tmpdir(), "multifd-test-")));
  }

  /** Path of something in the directory. */
  join(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
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
