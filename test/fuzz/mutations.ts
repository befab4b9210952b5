/**
 * Random damage to valid bytes, as arbitraries of fast-check, so that a failure shrinks to the few
 * changes that matter.
 *
 * @module
 */
import { array, constantFrom, integer, nat, oneof, record, type Arbitrary } from "fast-check";
import type { Random } from "./random.ts";

/** One change; places are taken modulo the length, so that every change fits every input. */
type Edit =
  | { readonly kind: "flip"; readonly at: number; readonly bit: number }
  | { readonly kind: "byte"; readonly at: number; readonly value: number }
  | { readonly kind: "word"; readonly at: number; readonly value: number }
  | { readonly kind: "cut"; readonly at: number }
  | { readonly kind: "remove"; readonly at: number; readonly count: number }
  | { readonly kind: "repeat"; readonly at: number; readonly count: number };

/** Numbers at the borders of what fields and limits can be. */
const BORDERS = [
  0, 1, 2, 7, 8, 127, 128, 129, 255, 256, 4095, 4096, 4097, 65_535, 65_536, 1_048_576, 1_048_577,
  0x7fff_ffff, 0x8000_0000, 0xffff_f000, 0xffff_ffff, 0x1122_3344, 0x5145_564d,
];

const at = nat(0xffff);
const edit: Arbitrary<Edit> = oneof(
  record({ kind: constantFrom("flip"), at, bit: nat(7) }),
  record({ kind: constantFrom("byte"), at, value: nat(255) }),
  record({ kind: constantFrom("word"), at, value: oneof(constantFrom(...BORDERS), integer()) }),
  record({ kind: constantFrom("cut"), at }),
  record({ kind: constantFrom("remove"), at, count: integer({ min: 1, max: 64 }) }),
  record({ kind: constantFrom("repeat"), at, count: integer({ min: 1, max: 600 }) }),
) as Arbitrary<Edit>;

/** A seed, by its number, and what is done to it. */
interface Mutation {
  readonly seed: number;
  readonly edits: readonly Edit[];
}

/** Mutations of one of several seeds. */
export const mutations: Arbitrary<Mutation> = record({
  seed: nat(),
  edits: array(edit, { maxLength: 6 }),
});

/** Draws what `mutations` describes, without its price: nothing of it can be shrunk. */
export function randomMutation(random: Random, editsMax = 6): Mutation {
  const edits: Edit[] = [];
  for (let count = random.below(editsMax + 1); count > 0; count--) edits.push(randomEdit(random));
  return { seed: random.word(), edits };
}

function randomEdit(random: Random): Edit {
  const place = random.below(0x1_0000);
  switch (random.below(6)) {
    case 0:
      return { kind: "flip", at: place, bit: random.below(8) };
    case 1:
      return { kind: "byte", at: place, value: random.below(256) };
    case 2:
      return {
        kind: "word",
        at: place,
        value: random.once(2) ? random.word() | 0 : random.pick(BORDERS),
      };
    case 3:
      return { kind: "cut", at: place };
    case 4:
      return { kind: "remove", at: place, count: 1 + random.below(64) };
    default:
      return { kind: "repeat", at: place, count: 1 + random.below(600) };
  }
}

/** The changed copy of the seed. */
export function mutated(seeds: readonly Uint8Array[], mutation: Mutation): Uint8Array {
  let bytes = (seeds[mutation.seed % seeds.length] ?? new Uint8Array()).slice();
  for (const change of mutation.edits) {
    if (bytes.byteLength === 0) return bytes;
    const place = change.at % bytes.byteLength;
    switch (change.kind) {
      case "flip":
        bytes[place] = (bytes[place] ?? 0) ^ (1 << change.bit);
        break;
      case "byte":
        bytes[place] = change.value;
        break;
      case "word":
        // Fields are aligned to 4 bytes in packets, hence half of these hit one.
        for (let index = 0; index < 4; index++) {
          const byteAt = (change.value & 1 ? place : place & ~3) + index;
          if (byteAt < bytes.byteLength) bytes[byteAt] = change.value >>> (24 - 8 * index);
        }
        break;
      case "cut":
        bytes = bytes.slice(0, place);
        break;
      case "remove":
        bytes = new Uint8Array(
          Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + change.count)]),
        );
        break;
      case "repeat": {
        const part = bytes.subarray(place, place + change.count);
        bytes = new Uint8Array(
          Buffer.concat([bytes.subarray(0, place), part, bytes.subarray(place)]),
        );
      }
    }
  }
  return bytes;
}
