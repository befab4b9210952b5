/**
 * The frame of every program in this directory: one line on stderr for a failure, an exit status
 * that scripts can rely on, and signals that cancel.
 *
 * @module
 */
import { HelpRequest, UsageError } from "./arguments.ts";
import { library } from "./library.ts";

/** Exit statuses. */
export const ExitStatus = {
  /** All done, and confirmed by the other side where there is one. */
  OK: 0,
  /** Failed or cancelled; stderr has one line that says why. */
  FAILED: 1,
  /** Wrong arguments; stderr has the reason and the usage. */
  USAGE: 2,
} as const;

/** From the polite end after a signal to the hard one, should something not listen to the signal. */
const CANCEL_LIMIT_MS = 5000;

/**
 * Runs a program and ends the process with a status of {@linkcode ExitStatus}.
 *
 * @param usage Text for `--help` and for wrong arguments.
 * @param main The program. Its signal is aborted by SIGINT and SIGTERM; a second signal ends the
 * process at once.
 */
export async function runProgram(
  usage: string,
  main: (signal: AbortSignal) => Promise<void>,
): Promise<never> {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(ExitStatus.FAILED);
      controller.abort(new Error(name));
      setTimeout(() => process.exit(ExitStatus.FAILED), CANCEL_LIMIT_MS).unref();
    });
  }
  process.exit(await statusOf(usage, () => main(controller.signal)));
}

/**
 * Stops a program's own loops after a signal.
 *
 * @throws {Error} when `signal` is aborted.
 */
export function throwIfCancelled(signal: AbortSignal): void {
  if (!signal.aborted) return;
  const cause: unknown = signal.reason;
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new Error(`Cannot go on: cancelled (${reason})`, { cause });
}

async function statusOf(usage: string, main: () => Promise<void>): Promise<number> {
  try {
    await main();
    return ExitStatus.OK;
  } catch (error) {
    if (error instanceof HelpRequest) {
      process.stdout.write(`${usage}\n`);
      return ExitStatus.OK;
    }
    if (error instanceof UsageError) {
      process.stderr.write(`${error.message}\n\n${usage}\n`);
      return ExitStatus.USAGE;
    }
    process.stderr.write(`${library().describeError(error)}\n`);
    return ExitStatus.FAILED;
  }
}
