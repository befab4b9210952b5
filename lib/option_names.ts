/**
 * Names of options, and the answer to one that nobody knows: left alone it would have no effect, and
 * its writer would not hear of it.
 *
 * @module
 */

/**
 * All options of an interface. Written down with `satisfies OptionNames<…>`, so that a name more or
 * less than the interface has does not compile.
 */
export type OptionNames<Options> = Readonly<Record<keyof Options, true>>;

/**
 * Checks that all options are known.
 *
 * @param what Option that these are the parts of, if they are parts of one.
 * @throws {TypeError} that names the nearest option there is.
 */
export function checkOptionNames(
  names: Readonly<Record<string, true>>,
  options: object,
  what?: string,
): void {
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    const known = Object.keys(names);
    const [nearest] = known
      .map((candidate) => ({ candidate, steps: distance(name, candidate) }))
      .filter(({ candidate, steps }) => steps <= 1 + candidate.length / 4)
      .toSorted((left, right) => left.steps - right.steps);
    throw new TypeError(
      `Cannot use option ${what === undefined ? name : `${what}.${name}`}: ` +
        (nearest === undefined
          ? `must be one of ${known.join(", ")}`
          : `did you mean ${nearest.candidate}?`),
    );
  }
}

/** Letters to add, take away, change or swap with the next; which case they have is one step. */
function distance(name: string, candidate: string): number {
  const [left, right] = [name.toLowerCase(), candidate.toLowerCase()];
  let before: number[] = [];
  let row = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let at = 1; at <= left.length; at++) {
    const next = [at];
    for (let column = 1; column <= right.length; column++) {
      const changed = row[column - 1] + (left[at - 1] === right[column - 1] ? 0 : 1);
      const steps = Math.min(row[column] + 1, next[column - 1] + 1, changed);
      const swapped =
        at > 1 && left[at - 1] === right[column - 2] && left[at - 2] === right[column - 1];
      next.push(swapped ? Math.min(steps, before[column - 2] + 1) : steps);
    }
    [before, row] = [row, next];
  }
  return row[right.length] + (name !== candidate && left === right ? 1 : 0);
}
