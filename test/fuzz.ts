/**
 * Feeds every decoder with structures and damaged bytes, in one of two ways:
 *
 * - `bun test/fuzz.ts --seconds 600` divides the time among the targets; a failure is made smaller and
 *   printed with the seed and path that repeat it.
 * - `bun test/fuzz.ts --inputs 10000000` runs so many inputs over all targets in turn, each within a
 *   limit of time and memory, and tells how far it is. Seed and number make an input again:
 *   `--seed S --first NUMBER --inputs 1`.
 */
import { parseArgs } from "node:util";
import { assert, property } from "fast-check";
import { runInputs } from "./fuzz/long_run.ts";
import { mutated, mutations } from "./fuzz/mutations.ts";
import { fuzzTargets, runTarget } from "./fuzz/targets.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    target: { type: "string", default: "" },
    seed: { type: "string" },
    inputs: { type: "string" },
    first: { type: "string", default: "0" },
  },
});

function wholeNumber(what: string, text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= 0) return number;
  console.error(`Cannot fuzz with ${what} ${text}: must be a whole number`);
  process.exit(2);
}

const targets = fuzzTargets.filter(({ name }) => name.includes(values.target));
if (targets.length === 0) {
  console.error(`Cannot fuzz ${values.target}: there is no such target`);
  process.exit(2);
}

function runNumber(inputs: number): boolean {
  const seed = wholeNumber("seed", values.seed ?? String(Date.now() % 0x7fff_ffff));
  const first = wholeNumber("first input", values.first);
  console.log(`seed ${seed}, inputs ${first} to ${first + inputs - 1}, ${targets.length} targets`);
  try {
    const chosenBy = values.target === "" ? "" : ` --target ${values.target}`;
    runInputs({ targets, chosenBy, seed, first, inputs, log: (line) => console.log(line) });
    console.log(`${inputs} inputs, seed ${seed}: ok`);
    return true;
  } catch (error) {
    console.error((error as Error).message);
    return false;
  }
}

function runSeconds(seconds: number): boolean {
  let succeeded = true;
  for (const target of targets) {
    let runs = 0;
    try {
      assert(
        property(mutations, (mutation) => {
          runs++;
          runTarget(target, mutated(target.seeds, mutation));
        }),
        {
          numRuns: Number.MAX_SAFE_INTEGER,
          interruptAfterTimeLimit: (seconds * 1000) / targets.length,
          markInterruptAsFailure: false,
          ...(values.seed === undefined ? {} : { seed: Number(values.seed) }),
        },
      );
      console.log(`${target.name}: ${runs} inputs, ok`);
    } catch (error) {
      succeeded = false;
      console.error(`${target.name}: ${runs} inputs, FAILED\n${(error as Error).message}`);
    }
  }
  return succeeded;
}

const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  console.error(`Cannot fuzz for ${values.seconds} seconds: must be a positive number`);
  process.exit(2);
}
const succeeded =
  values.inputs === undefined
    ? runSeconds(seconds)
    : runNumber(wholeNumber("number of inputs", values.inputs));
process.exitCode = succeeded ? 0 : 1;
