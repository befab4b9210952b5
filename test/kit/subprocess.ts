/**
 * Runs a program of this repository as a process of its own, for everything that can block a thread
 * or end the process, and kills it when it does not end.
 *
 * @module
 */
import { bun, repositoryRoot } from "../setup/command.ts";

/** How a program ended. */
export interface ProgramResult {
  readonly code: number | null;
  /** Set when the kill timer ended it. */
  readonly killed: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a program is run. */
export interface ProgramOptions {
  readonly env?: Record<string, string>;
  /** Kill timer, default 60 s. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
}

/** Runs a command and waits for its end. */
export async function runCommand(
  command: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const child = Bun.spawn([...command], {
    cwd: options.cwd ?? repositoryRoot,
    env: { ...process.env, ...options.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let killed = false;
  const timer = setTimeout(() => {
    killed = true;
    child.kill("SIGKILL");
  }, options.timeoutMs ?? 60_000);
  const [stdout, stderr, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  clearTimeout(timer);
  return { code, killed, stdout, stderr };
}

/** Runs `test/fixtures/<name>.ts`. */
export function runFixture(
  name: string,
  args: readonly string[] = [],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  return runCommand([bun, `test/fixtures/${name}.ts`, ...args], options);
}

/** Runs a fixture and returns the JSON on its last line; its failure fails the test with its words. */
export async function fixtureResult(
  name: string,
  args: readonly string[] = [],
  options: ProgramOptions = {},
): Promise<unknown> {
  const result = await runFixture(name, args, options);
  if (result.code !== 0) {
    throw new Error(
      `Cannot use fixture ${name}: ${result.killed ? "killed by the timer" : `exit ${result.code}`}\n` +
        `${result.stdout}\n${result.stderr}`,
    );
  }
  return JSON.parse(result.stdout.trimEnd().split("\n").at(-1) ?? "") as unknown;
}
