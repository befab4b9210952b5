/**
 * The guest of the QEMU tests: assembles `tiny_guest.asm`, sets its parameters, and judges the
 * memory it leaves behind.
 *
 * @module
 */

import { runCommand } from "../kit/subprocess.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";

const SOURCE = new URL("./tiny_guest.asm", import.meta.url).pathname;
const MAGIC = "MFGUEST1";

// Offsets of the parameters in the image, all u32 little-endian; tiny_guest.asm lists them too.
const COUNTER_START_AT = 0x08;
const COUNTER_END_AT = 0x0c;
const PAUSE_MS_AT = 0x10;
const NOISE_START_AT = 0x14;
const NOISE_END_AT = 0x18;
const TEXT_START_AT = 0x1c;
const TEXT_END_AT = 0x20;
const SEED_AT = 0x24;

const MIB = 1 << 20;

/** Bytes of a page of the guest. */
export const PAGE_BYTES = 4096;

/** Where the counters start if nothing else is said: above all that a PC keeps below 16 MiB. */
export const COUNTER_START = 16 * MIB;

/** What the guest does. */
interface TinyGuestOptions {
  /** First byte of the counted pages, guest-physical. Default 16 MiB. */
  readonly counterStart?: number | undefined;
  /** Their end. Default: the end of RAM, as far as it lies below 4 GiB. */
  readonly counterEnd?: number | undefined;
  /**
   * Pause after each round with the CPU halted. Default 0: the guest uses one core of the host and
   * dirties memory as fast as it can.
   */
  readonly roundPauseMs?: number | undefined;
  /** Bytes from `counterStart` on that are filled once with what no codec shrinks. Default 0. */
  readonly noiseBytes?: number | undefined;
  /** Bytes behind the noise that are filled once with words. Default 0. */
  readonly textBytes?: number | undefined;
  /** Seed of both fillings, not 0. */
  readonly seed?: number | undefined;
}

/**
 * Whether the guest can be assembled here.
 *
 * @returns `null` if it can, or else what is missing, to be shown beside a skipped test.
 */
export function nasmAvailable(): string | null {
  return Bun.which("nasm") === null ? "nasm not found; needs Debian package nasm" : null;
}

/** A firmware image in a folder of its own, removed when the variable goes out of scope. */
export class TinyGuest implements AsyncDisposable {
  readonly #folder = new TemporaryFolder();
  /** File for QEMU's `-bios`. */
  readonly path: string = this.#folder.file("tiny_guest.bin");

  /** Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#folder[Symbol.dispose]();
  }
}

/**
 * Assembles the guest and writes its parameters into the image.
 *
 * @throws {RangeError} If a size is not a multiple of a page.
 * @throws {Error} If nasm refuses the source.
 *
 * @example
 * ```ts
 * await using guest = await assembleTinyGuest({ roundPauseMs: 20, noiseBytes: 4 << 20 });
 * await using vm = await Qemu.start({ name: "vm", memoryMib: 64, bios: guest.path });
 * await vm.waitSerial(/00000003\n/, 10_000);
 * ```
 */
export async function assembleTinyGuest(options: TinyGuestOptions = {}): Promise<TinyGuest> {
  const parameters = parameterWords(options);
  const guest = new TinyGuest();
  try {
    const command = ["nasm", "-f", "bin", "-o", guest.path, SOURCE];
    const { status, stderr } = await runCommand(command);
    if (status !== 0)
      throw new Error(`Cannot assemble ${SOURCE}: nasm exited with ${status}: ${stderr}`);
    const image = await Bun.file(guest.path).bytes();
    if (Buffer.from(image.subarray(0, MAGIC.length)).toString("latin1") !== MAGIC) {
      throw new Error(
        `Cannot set parameters of ${SOURCE}: no ${MAGIC}, the image must start with it`,
      );
    }
    const view = new DataView(image.buffer, image.byteOffset);
    for (const [at, value] of parameters) view.setUint32(at, value, true);
    await Bun.write(guest.path, image);
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

function parameterWords(options: TinyGuestOptions): [at: number, value: number][] {
  const { counterStart = COUNTER_START, counterEnd = 0, roundPauseMs = 0 } = options;
  const { noiseBytes = 0, textBytes = 0, seed = 0x9e3779b9 } = options;
  for (const [name, value] of Object.entries({ counterStart, counterEnd, noiseBytes, textBytes })) {
    if (value >= 0 && value < 2 ** 32 && value % PAGE_BYTES === 0) continue;
    throw new RangeError(
      `Cannot make a guest: ${name} is ${value}, must be whole pages below 4 GiB`,
    );
  }
  const noiseEnd = counterStart + noiseBytes;
  return [
    [COUNTER_START_AT, counterStart],
    [COUNTER_END_AT, counterEnd],
    [PAUSE_MS_AT, roundPauseMs],
    [NOISE_START_AT, counterStart],
    [NOISE_END_AT, noiseEnd],
    [TEXT_START_AT, noiseEnd],
    [TEXT_END_AT, noiseEnd + textBytes],
    [SEED_AT, seed],
  ];
}

/** The rounds a guest printed, in order; an unfinished last line is left out. */
export function serialRounds(serial: string): number[] {
  return Array.from(serial.matchAll(/^([0-9a-f]{8})\r?\n/gm), ([, digits]) =>
    Number.parseInt(digits ?? "", 16),
  );
}

/**
 * Checks that the serial output of a guest goes on in another machine where it stopped in the first.
 * A line may have been begun in the one and ended in the other.
 *
 * @returns How many rounds ended in the other machine.
 * @throws {Error} Naming the rounds when one is missing, doubled or torn.
 */
export function checkSerialGoesOn(before: string, after: string): number {
  const rounds = serialRounds(before + after);
  if (rounds.some((round, index) => round !== index + 1)) {
    throw new Error(`rounds do not go on: ${rounds.join(" ")}`);
  }
  return rounds.length - serialRounds(before).length;
}

/** What {@link checkCounters} found. */
interface CounterReport {
  /** The first page's counter: the number of the round under way, modulo 256. */
  readonly first: number;
  /** The page at which the round was interrupted; `undefined` if all pages are equal. */
  readonly stepAt: number | undefined;
}

/**
 * Checks what a stopped guest left in its range: the counters must be equal, but for one place at
 * which the round under way had not arrived and the counter is one less.
 *
 * @param memory Memory of the guest, from guest-physical address `start` on.
 * @param start First byte of the counted pages, guest-physical; only for the message.
 * @param end End of the counted pages.
 * @throws {Error} Naming the first page that is wrong: lost, stale or torn.
 */
export function checkCounters(memory: Uint8Array, start: number, end: number): CounterReport {
  if (memory.byteLength < end - start || start % PAGE_BYTES !== 0 || end <= start) {
    const what = `${memory.byteLength} bytes for ${hex(start)} to ${hex(end)}`;
    throw new RangeError(`Cannot check counters: ${what}, must be whole pages and all of them`);
  }
  const first = memory[0] ?? 0;
  let expected = first;
  let stepAt: number | undefined;
  for (let address = start; address < end; address += PAGE_BYTES) {
    const counter = memory[address - start];
    if (counter === expected) continue;
    if (stepAt !== undefined || counter !== ((expected + 255) & 255)) {
      const allowed = stepAt === undefined ? `${expected} or one less` : `${expected}`;
      throw new Error(
        `Cannot accept page ${hex(address)}: its counter is ${counter}, must be ${allowed}`,
      );
    }
    expected = counter;
    stepAt = address;
  }
  return { first, stepAt };
}

function hex(address: number): string {
  return `0x${address.toString(16)}`;
}
