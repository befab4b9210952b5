/**
 * Everything that a change has to pass, from a fresh clone, in one command. A failed step does not
 * stop the others, so that one run shows all there is to repair; only without the npm packages is
 * there no point in going on.
 *
 * Arguments are passed on to `bun test`: file name patterns and options.
 */
import { bun, repositoryRoot, run } from "./setup/command.ts";
import { installDependencies } from "./setup/dependencies.ts";
import { installPackages } from "./setup/packages.ts";
import { prepareQemus } from "./setup/qemu_packages.ts";
import { prepareQpl, QPL_VARIABLE } from "./setup/qpl_library.ts";

const bunVersion = "1.4.4";

/** A single test; those that move real memory images through a small machine take seconds. */
const testTimeoutMs = 60_000;

/**
 * All tests. Bun's own limit cannot end a test that blocks its thread, for example in
 * `Atomics.wait`, and a run that hangs tells nobody which test it was.
 */
const allTestsTimeoutMs = 45 * 60_000;

/** From the polite signal, on which bun test names the files still running, to the other one. */
const killDelayMs = 10_000;

interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

const failedSteps: string[] = [];

/** Runs one step under a heading, prints the time it took, and remembers a failure. */
async function step(title: string, action: () => Promise<boolean>): Promise<boolean> {
  console.log(`\n==> ${title}`);
  const startedMs = performance.now();
  const succeeded = await action();
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  console.log(`<== ${title}: ${succeeded ? "ok" : "FAILED"} in ${seconds} s`);
  if (!succeeded) failedSteps.push(title);
  return succeeded;
}

/** Runs a script of package.json, so that it and this file cannot differ. */
async function script(name: string): Promise<boolean> {
  return (await run([bun, "run", "--silent", name])) === 0;
}

/** Runs `bun test` and takes the counts from the summary that it ends with. */
async function runTests(patterns: readonly string[]): Promise<[boolean, TestCounts]> {
  const child = Bun.spawn(
    [
      bun,
      "test",
      // A process per file at a time: a native crash then ends as a failed file, not as no report.
      "--parallel=2",
      `--timeout=${testTimeoutMs}`,
      // Programs that a killed test leaves behind would hold ports and memory.
      "--no-orphans",
      ...patterns,
    ],
    // Named, since what a step has set in it, the path of QPL, does not reach the child otherwise.
    { cwd: repositoryRoot, env: process.env, stdin: "ignore", stdout: "inherit", stderr: "pipe" },
  );
  const timer = setTimeout(() => {
    console.error(
      `Cannot finish the tests: they still run after ${allTestsTimeoutMs / 60_000} minutes, ` +
        "no test may block its thread for ever",
    );
    child.kill("SIGTERM");
    setTimeout(() => child.kill("SIGKILL"), killDelayMs).unref();
  }, allTestsTimeoutMs);

  // bun test reports on stderr; its last lines hold the counts.
  let tail = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stderr) {
    process.stderr.write(chunk);
    tail = (tail + decoder.decode(chunk, { stream: true })).slice(-4096);
  }
  const status = await child.exited;
  clearTimeout(timer);
  const counts = countsOf(tail);
  if (status === 0 && counts.passed + counts.skipped === 0) {
    console.error("Cannot count the tests: bun test ended without a summary, it must have one");
    return [false, counts];
  }
  return [status === 0, counts];
}

/** Reads " 12 pass", " 1 skip", " 2 todo", " 0 fail" from the end of bun test's report. */
function countsOf(report: string): TestCounts {
  const counts = new Map<string, number>();
  // A test may print such a line too; the summary comes last, so its numbers stay.
  for (const match of Bun.stripANSI(report).matchAll(/^ *(\d+) (pass|fail|skip|todo)$/gm)) {
    counts.set(match[2] ?? "", Number(match[1]));
  }
  const count = (word: string): number => counts.get(word) ?? 0;
  return {
    passed: count("pass"),
    failed: count("fail"),
    skipped: count("skip") + count("todo"),
  };
}

async function main(): Promise<number> {
  if (Bun.semver.order(Bun.version, bunVersion) < 0) {
    console.error(
      `Cannot run the tests: this is Bun ${Bun.version}, it must be ${bunVersion} or newer`,
    );
    return 1;
  }
  let counts: TestCounts = { passed: 0, failed: 0, skipped: 0 };
  if (await step("npm packages", installDependencies)) {
    await step("Debian packages", async () => {
      await installPackages();
      return true;
    });
    await step("QEMUs of other releases", async () => {
      await prepareQemus();
      return true;
    });
    await step("Intel QPL", async () => {
      const path = await prepareQpl();
      if (path !== undefined) process.env[QPL_VARIABLE] = path;
      return true;
    });
    await step("types", () => script("check"));
    await step("format", () => script("fmt:check"));
    await step("lint", () => script("lint"));
    await step("tests", async () => {
      const [succeeded, testCounts] = await runTests(process.argv.slice(2));
      counts = testCounts;
      return succeeded;
    });
  }

  console.log(failedSteps.length === 0 ? "\nAll steps ok" : `\nFailed: ${failedSteps.join(", ")}`);
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  return failedSteps.length === 0 ? 0 : 1;
}

process.exitCode = await main();
