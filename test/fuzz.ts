/**
 * Mutates valid input of every decoder until time is up: `bun test/fuzz.ts --seconds 600`. Each
 * target gets an equal share. A failure prints the seed and path with which fast-check repeats it.
 */
import { parseArgs } from "node:util";
import { assert, property } from "fast-check";
import { mutated, mutations } from "./fuzz/mutations.ts";
import { fuzzTargets, runTarget } from "./fuzz/targets.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    target: { type: "string", default: "" },
    seed: { type: "string" },
  },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  console.error(`Cannot fuzz for ${values.seconds} seconds: must be a positive number`);
  process.exit(2);
}
const targets = fuzzTargets.filter(({ name }) => name.includes(values.target));
let failed = false;
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
    failed = true;
    console.error(`${target.name}: ${runs} inputs, FAILED\n${(error as Error).message}`);
  }
}
process.exitCode = failed ? 1 : 0;
