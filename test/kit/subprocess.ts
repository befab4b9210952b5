/**
 * Runs programs as processes of their own, for everything that can block a thread or end the process,
 * and kills those that do not end. No test starts a process in another way unless it needs a pipe or
 * a terminal of its own.
 *
 * @module
 */
import { constants } from "node:os";
import { bun, repositoryRoot } from "../setup/command.ts";
import { LimitMs } from "./limits.ts";

/** How a program ended. */
export interface ProgramEnd {
  readonly status: number | null;
  /** Set when the kill timer ended it. */
  readonly killed: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a program is run. */
interface ProgramOptions {
  readonly env?: Record<string, string> | undefined;
  /** Kill timer; default that of a fixture. */
  readonly timeoutMs?: number | undefined;
  /** Default: the repository's root. */
  readonly cwd?: string | undefined;
}

/** A running program. Disposing kills it. */
export class Program implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #stderr: Promise<string>;
  readonly #watchdog: NodeJS.Timeout;
  readonly #reader: Promise<void>;
  #killed = false;
  #stdout = "";
  #grown = Promise.withResolvers<void>();

  constructor(command: readonly string[], options: ProgramOptions = {}) {
    this.#child = Bun.spawn([...command], {
      cwd: options.cwd ?? repositoryRoot,
      env: { ...process.env, ...options.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#watchdog = setTimeout(() => {
      this.#killed = true;
      this.kill("SIGKILL");
    }, options.timeoutMs ?? LimitMs.fixture);
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

  /** Waits for the end. */
  async end(): Promise<ProgramEnd> {
    const [status, stderr] = await Promise.all([this.#child.exited, this.#stderr, this.#reader]);
    clearTimeout(this.#watchdog);
    return {
      status: this.#child.exitCode ?? status,
      killed: this.#killed,
      stdout: this.#stdout,
      stderr,
    };
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

/** Lets a program that goes on for ever print its first line, and kills it a moment later. */
export async function killWithin(delayMs: number, command: readonly string[]): Promise<void> {
  await using program = new Program(command);
  await program.firstLine();
  await Bun.sleep(Math.random() * delayMs);
  program.kill("SIGKILL");
  const { status, stderr } = await program.end();
  if (status !== 128 + constants.signals.SIGKILL) throw new Error(`It ended by itself: ${stderr}`);
}

/** Runs a command and waits for its end. */
export async function runCommand(
  command: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramEnd> {
  await using program = new Program(command, options);
  return await program.end();
}

/** Runs a fixture and returns the JSON on its last line; its failure fails the test with its words. */
export async function fixtureResult(
  name: string,
  args: readonly string[] = [],
  options: ProgramOptions = {},
): Promise<unknown> {
  const { status, killed, stdout, stderr } = await runCommand(
    [bun, `test/fixtures/${name}.ts`, ...args],
    options,
  );
  if (status === 0) return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as unknown;
  const end = killed ? "killed by the timer" : `exit ${status}`;
  throw new Error(`Cannot use fixture ${name}: ${end}\n${stdout}\n${stderr}`);
}
