/**
 * The whole matrix of ways from QEMU to QEMU: methods, channels, machine types, transports, return
 * path, rounds and sizes, for recordings and for relays. Run as a program it tests all of it:
 *
 *     bun test/qemu/matrix.ts
 *
 * Every method with every number of channels comes up at both ends; everything else is drawn for each
 * case, always the same, so that every value meets most of the others.
 *
 * @module
 */
import { bun, repositoryRoot, run } from "../setup/command.ts";
import type { InteropCase } from "./interop_case.ts";

/** Environment variable that turns the matrix on; a number takes every n-th case only. */
export const MATRIX_VARIABLE = "MULTIFD_QEMU_MATRIX";

const METHODS = ["none", "zlib", "zstd"] as const;
const CHANNELS = [1, 2, 4, 16] as const;
const MACHINES = ["q35", "pc", "pc-i440fx-8.0", "pc-q35-7.2", "pc-q35-9.0"] as const;
const ROUNDS = [0, 1, 3] as const;
const MEMORY_MIB = [64, 96, 128, 256] as const;
const DETECTION = ["multifd", "legacy", "none"] as const;
const LARGE_MIB = 1024;

/** A case with its name. */
interface MatrixCase {
  readonly name: string;
  readonly options: InteropCase;
}

/** All cases: each source's method and channels with a destination that has other ones. */
export function matrixCases(): MatrixCase[] {
  const ends = METHODS.flatMap((compression) =>
    CHANNELS.map((channels) => ({ compression, channels })),
  );
  const cases = ends.flatMap((from, index) =>
    // Steps that share no factor with the number of ends: all destinations come up.
    [1, 5, 7].map((step) => caseOf(from, ends[(index * 5 + step) % ends.length], index * 3 + step)),
  );
  return [...cases, ...METHODS.map((method) => largeCase(method))];
}

type End = { compression: (typeof METHODS)[number]; channels: number };

function caseOf(from: End, to: End | undefined, index: number): MatrixCase {
  const target = to ?? from;
  const machine = pick(MACHINES, index, 1);
  const rounds = pick(ROUNDS, index, 2);
  const memoryMib = pick(MEMORY_MIB, index, 3);
  const transport = pick(["tcp", "unix"], index, 4);
  const returnPath = pick([true, true, false], index, 5);
  const sides = { returnPath, switchoverAck: returnPath && pick([true, false], index, 6) };
  const zeroPageDetection = pick(DETECTION, index, 7);
  return {
    name:
      `${transport}/${from.compression}/${from.channels} to ${target.compression}/${target.channels}, ` +
      `${machine}, ${memoryMib} MiB, ${rounds === 0 ? "stopped" : `${rounds} rounds`}, ` +
      `zero pages by ${zeroPageDetection}${returnPath ? "" : ", no return path"}` +
      (sides.switchoverAck ? ", switchover-ack" : ""),
    options: {
      machine,
      memoryMib,
      transport,
      rounds,
      from: { ...from, ...sides, zeroPageDetection },
      to: { ...target, ...sides },
    },
  };
}

function largeCase(compression: (typeof METHODS)[number]): MatrixCase {
  const side = { compression, channels: 4 };
  return {
    name: `tcp/${compression}/4 to ${compression}/4, q35, ${LARGE_MIB} MiB`,
    options: { machine: "q35", memoryMib: LARGE_MIB, from: side, to: side },
  };
}

/** Takes a value as if at random, but always the same one; `salt` makes choices independent. */
function pick<const Value>(values: readonly Value[], index: number, salt: number): Value {
  const drawn = Math.imul(index * 8 + salt, 0x9e37_79b1) >>> 8;
  return values[drawn % values.length] as Value;
}

if (import.meta.main) {
  process.env[MATRIX_VARIABLE] ??= "1";
  const command = [bun, "test", "--timeout=180000", "--no-orphans", "test/qemu/matrix.test.ts"];
  process.exitCode = await run([...command.slice(0, -1), `${repositoryRoot}/${command.at(-1)}`]);
}
