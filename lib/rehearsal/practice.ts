/**
 * What this thread has rehearsed so far. A rehearsal that is cut short goes on where it was, and what a
 * thread has rehearsed once stays compiled.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";

/** Rounds done, by what was done. */
const done = new Map<string, number>();

/** Whether there is nothing left to rehearse of `what`. */
export function isPractised(what: string): boolean {
  return done.get(what) === Infinity;
}

/**
 * Does what is left of `rounds` of something, until `session` stops.
 *
 * @param step Does some rounds from the given one on; returns how many.
 */
export function practise(
  what: string,
  rounds: number,
  session: Stoppable,
  step: (round: number) => number,
): void {
  let round = done.get(what) ?? 0;
  while (round < rounds && !session.stopping) round += step(round);
  done.set(what, round < rounds ? round : Infinity);
}
