/**
 * Runs the programs that the set-up needs, with their output left on the terminal, because what
 * apt or a linter has to say is better than any summary of it.
 */

/** How a program is run. */
interface RunOptions {
  /** Added to this process's environment. */
  readonly env?: Record<string, string>;
  /** Folder to run in; the repository root unless given. */
  readonly cwd?: string;
  /** Drop the output; for commands that only ask a question. */
  readonly quiet?: boolean;
}

/**
 * Runs a program in the repository root and waits for it.
 *
 * @returns its exit status, and 127 for a program that is not installed, as a shell does
 */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<number> {
  const output = options.quiet === true ? "ignore" : "inherit";
  try {
    const child = Bun.spawn([...command], {
      cwd: options.cwd ?? repositoryRoot,
      env: { ...process.env, ...options.env },
      stdin: "ignore",
      stdout: output,
      stderr: output,
    });
    return await child.exited;
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return 127;
    throw cause;
  }
}

/** Runs a program and returns what it printed, or undefined when it failed or is not installed. */
export async function outputOf(command: readonly string[]): Promise<string | undefined> {
  try {
    const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    const text = await child.stdout.text();
    return (await child.exited) === 0 ? text : undefined;
  } catch {
    return undefined;
  }
}

/** The folder that holds package.json; every command runs there. */
export const repositoryRoot = new URL("../..", import.meta.url).pathname;

/**
 * The running Bun. A bare `bun` need not be on PATH: `npx bun` puts it there, a direct call of the
 * binary does not.
 */
export const bun = process.execPath;
