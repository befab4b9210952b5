import { expect, test } from "bun:test";
import { assert, property } from "fast-check";
import { runCommand } from "../kit/subprocess.ts";
import { bun } from "../setup/command.ts";
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
  });
}

test("fuzz.ts runs for as long as it is told and reports every target", async () => {
  const result = await runCommand([bun, "test/fuzz.ts", "--seconds", "2"]);
  expect(result.stderr).toBe("");
  expect(result.status).toBe(0);
  expect(result.stdout.trim().split("\n")).toHaveLength(fuzzTargets.length);
  expect((await runCommand([bun, "test/fuzz.ts", "--seconds", "no"])).status).toBe(2);
});
