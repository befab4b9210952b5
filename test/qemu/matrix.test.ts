import { expect, test } from "bun:test";
import { expectRecordAndRestore, expectRelay } from "./interop_case.ts";
import { MATRIX_VARIABLE, matrixCases } from "./matrix.ts";
import { qemuTest } from "./qemu_case.ts";

const LIMIT_MS = 180_000;
const every = Number(process.env[MATRIX_VARIABLE] ?? 0);

test("matrixCases() has every method with every number of channels at both ends", () => {
  const cases = matrixCases();
  for (const side of ["from", "to"] as const) {
    const ends = cases.map(({ options }) => options[side]);
    expect(
      new Set(ends.map(({ compression, channels }) => `${compression}/${channels}`)).size,
    ).toBe(12);
    expect(new Set(ends.map(({ returnPath = true }) => returnPath)).size).toBe(2);
  }
  const values = (name: "machine" | "transport" | "rounds") =>
    new Set(cases.map(({ options }) => options[name] ?? "default")).size;
  expect([values("machine"), values("transport"), values("rounds")]).toEqual([5, 3, 4]);
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
});

if (every > 0) {
  for (const { name, options } of matrixCases().filter((_, index) => index % every === 0)) {
    qemuTest(
      `matrix: record and restore: ${name}`,
      () => expectRecordAndRestore(options),
      LIMIT_MS,
    );
    qemuTest(`matrix: relay: ${name}`, () => expectRelay(options), LIMIT_MS);
  }
} else {
  // Some minutes long; CI asks for it, a developer's run does not.
  test.skip(`matrix of QEMU migrations (needs ${MATRIX_VARIABLE}=1, see test/qemu/matrix.ts)`, () => {});
}
