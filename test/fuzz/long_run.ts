/**
 * Runs a given number of inputs, each made of the seed and its own number, and holds every input to
 * a limit of time and memory. A failure names the command that runs this one input again.
 *
 * @module
 */
import { residentMemory, resetPeak } from "../../bench/cpu_time.ts";
import { mutated, randomMutation } from "./mutations.ts";
import { Random } from "./random.ts";
import { runTarget, type FuzzTarget } from "./targets.ts";

/** The longest any input may take, in milliseconds. The slowest sound one takes a few. */
const INPUT_MS_MAX = 1000;
/** The most memory any input may take, in bytes: buffers of a codec, and garbage not yet collected. */
export const INPUT_BYTES_MAX = 96 * 1_048_576;

const BATCH = 2000;
const PROGRESS_MS = 10_000;

/** What to run. */
interface LongRun {
  readonly targets: readonly FuzzTarget[];
  /** How the targets were chosen, for the command that repeats an input. */
  readonly chosenBy: string;
  readonly seed: number;
  /** Number of the first input. */
  readonly first: number;
  /** How many inputs. */
  readonly inputs: number;
  /** Takes each line of progress. */
  readonly log: (line: string) => void;
}

/** An input that broke a promise or a limit. */
export class FuzzFailure extends Error {
  override readonly name = "FuzzFailure";
}

/**
 * Runs all inputs.
 *
 * @throws {FuzzFailure} for the first input that fails.
 */
export function runInputs(run: LongRun): void {
  const start = performance.now();
  let told = start;
  const end = run.first + run.inputs;
  for (let first = run.first; first < end; first += BATCH) {
    const last = Math.min(end, first + BATCH);
    resetPeak();
    const before = residentMemory().rssBytes;
    for (let input = first; input < last; input++) runInput(run, input);
    if (residentMemory().peakRssBytes - before > INPUT_BYTES_MAX) findLargest(run, first, last);
    const now = performance.now();
    if (now - told < PROGRESS_MS && last < end) continue;
    told = now;
    const done = last - run.first;
    const rate = Math.round((done * 1000) / Math.max(1, now - start));
    run.log(
      `${done} of ${run.inputs} inputs, ${((done * 100) / run.inputs).toFixed(1)} %, ` +
        `${Math.round((now - start) / 1000)} s, ${rate} inputs/s, ` +
        `${Math.round(residentMemory().rssBytes / 1_048_576)} MiB`,
    );
  }
}

function runInput(run: LongRun, input: number): void {
  const target = run.targets[input % run.targets.length]!;
  const bytes = inputOf(target, run.seed, input);
  if (measured(run, target, input, bytes) <= INPUT_MS_MAX) return;
  // A machine may have had other work; what is slow again is slow.
  const ms = measured(run, target, input, bytes);
  if (ms <= INPUT_MS_MAX) return;
  throw failure(run, input, `it took ${Math.round(ms)} ms, at most ${INPUT_MS_MAX} are allowed`);
}

function measured(run: LongRun, target: FuzzTarget, input: number, bytes: Uint8Array): number {
  const start = performance.now();
  try {
    runTarget(target, bytes.slice());
  } catch (error) {
    throw failure(run, input, error instanceof Error ? (error.stack ?? error.message) : "thrown");
  }
  return performance.now() - start;
}

/** The input of that number: a structure of the target's own or a seed, changed or not. */
export function inputOf(target: FuzzTarget, seed: number, input: number): Uint8Array {
  const random = new Random(seed, input);
  if (target.generate === undefined || random.once(4)) {
    return mutated(target.seeds, randomMutation(random));
  }
  const bytes = target.generate(random);
  return random.once(2) ? bytes : mutated([bytes], randomMutation(random, 3));
}

/** A batch took much memory: garbage of all its inputs, or one of them alone. */
function findLargest(run: LongRun, first: number, last: number): void {
  for (let input = first; input < last; input++) {
    Bun.gc(true);
    resetPeak();
    const before = residentMemory().rssBytes;
    runInput(run, input);
    const bytes = residentMemory().peakRssBytes - before;
    if (bytes <= INPUT_BYTES_MAX) continue;
    throw failure(run, input, `it took ${bytes} bytes, at most ${INPUT_BYTES_MAX} are allowed`);
  }
}

function failure({ seed, targets, chosenBy }: LongRun, input: number, reason: string): FuzzFailure {
  const { name } = targets[input % targets.length]!;
  return new FuzzFailure(
    `${name}: input ${input} FAILED: ${reason}\n` +
      `again: bun test/fuzz.ts${chosenBy} --seed ${seed} --first ${input} --inputs 1`,
  );
}
