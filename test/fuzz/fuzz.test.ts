import { expect, test } from "bun:test";
import { assert, property } from "fast-check";
import { runCommand } from "../kit/subprocess.ts";
import { bun } from "../setup/command.ts";
import { FuzzFailure, INPUT_BYTES_MAX, inputOf, runInputs } from "./long_run.ts";
import { mutated, mutations } from "./mutations.ts";
import { fuzzTargets, runTarget } from "./targets.ts";

for (const target of fuzzTargets) {
  test(`fuzz/${target.name}: seeds are accepted, damage is refused or harmless`, () => {
    for (const seed of target.seeds) {
      if (target.name === "packet/65536/2") continue; // its seeds are packets of small pages
      if (target.name === "return-path") continue; // its seed ends in the middle of a message
      target.run(seed.slice());
    }
    assert(
      property(mutations, (mutation) => {
        runTarget(target, mutated(target.seeds, mutation));
      }),
      { numRuns: target.name.startsWith("payload/") ? 300 : 1500 },
    );
    // Structures of its own, and what is left of them after damage.
    runInputs({ targets: [target], chosenBy: "", seed: 1, first: 0, inputs: 1000, log: () => {} });
  });
}

test("fuzz.ts runs for as long as it is told and reports every target", async () => {
  const result = await runCommand([bun, "test/fuzz.ts", "--seconds", "2"]);
  expect(result.stderr).toBe("");
  expect(result.status).toBe(0);
  expect(result.stdout.trim().split("\n")).toHaveLength(fuzzTargets.length);
  expect((await runCommand([bun, "test/fuzz.ts", "--seconds", "no"])).status).toBe(2);
});

test("fuzz.ts runs a number of inputs, tells the seed, and repeats any of them", async () => {
  const result = await runCommand([bun, "test/fuzz.ts", "--inputs", "3000", "--seed", "7"]);
  expect(result.stderr).toBe("");
  expect(result.status).toBe(0);
  expect(result.stdout).toContain("seed 7, inputs 0 to 2999");
  expect(result.stdout).toContain("3000 of 3000 inputs, 100.0 %");
  const [target] = fuzzTargets;
  expect(inputOf(target!, 7, 2999)).toEqual(inputOf(target!, 7, 2999));
  expect((await runCommand([bun, "test/fuzz.ts", "--inputs", "many"])).status).toBe(2);
});

test("a run of inputs ends with the one that breaks a promise, takes too long or too much memory", () => {
  const kept: Uint8Array[] = [];
  const faults: Record<string, () => void> = {
    "Broken promise": () => {
      throw new Error("Broken promise: none");
    },
    "it took \\d+ ms": () => Bun.sleepSync(1100),
    "it took \\d+ bytes": () => kept.push(new Uint8Array(INPUT_BYTES_MAX + 2 ** 24).fill(1)),
  };
  for (const [reason, fault] of Object.entries(faults)) {
    let input = 0;
    const failing = {
      name: "failing",
      seeds: [Uint8Array.of(1)],
      run: (): void => {
        if (input++ % 4 === 3) fault();
      },
    };
    const run = { targets: [failing], chosenBy: "", seed: 1, first: 0, inputs: 8, log: () => {} };
    // A slow input is tried again, so it must be slow each time.
    if (reason.includes("ms")) failing.run = fault;
    expect(() => runInputs(run)).toThrow(FuzzFailure);
    input = 0;
    expect(() => runInputs(run)).toThrow(
      RegExp(`${reason}[^]*again: bun test/fuzz.ts --seed 1 --first \\d+ --inputs 1`),
    );
    kept.length = 0;
  }
});
