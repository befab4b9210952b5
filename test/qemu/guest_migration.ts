/**
 * A tiny guest in a real QEMU, made ready to migrate, and the proof that it goes on elsewhere exactly
 * where it was.
 *
 * @module
 */
import { expect } from "bun:test";
import type { CompressionMethod } from "../../mod.ts";
import { noteBreakdown, Qemu, type QemuOptions } from "./qemu.ts";
import type { QemuVersion } from "./qemu_versions.ts";
import {
  assembleTinyGuest,
  checkCounters,
  checkSerialGoesOn,
  COUNTER_START,
  type TinyGuest,
} from "./tiny_guest.ts";
import { LimitMs } from "../kit/limits.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";

const MIB = 1 << 20;
const UNLIMITED = 2 ** 40; // bytes per second
const UNHURRIED_MS = 100_000; // so that a guest that keeps writing ends after one round

/** How one side of a migration is set. */
export interface Side {
  readonly channels: number;
  readonly compression: CompressionMethod;
  /** Which QEMU. Default: the machine's own. */
  readonly version?: QemuVersion | undefined;
  /** Properties of its TLS credentials object, `tls-creds-x509` or `tls-creds-psk`. */
  readonly tlsObject?: string | undefined;
  /** Distinguished name that it takes in a certificate. */
  readonly tlsAuthz?: string | undefined;
  /** Default true. */
  readonly returnPath?: boolean | undefined;
  readonly switchoverAck?: boolean | undefined;
  readonly validateUuid?: boolean | undefined;
  readonly zeroPageDetection?: "none" | "legacy" | "multifd" | undefined;
}

/** The machine of a test. */
export interface GuestMachine {
  readonly machine?: string | undefined;
  readonly cpu?: string | undefined;
  /** Default 48. */
  readonly memoryMib?: number | undefined;
  readonly uuid?: string | undefined;
  readonly extraArgs?: readonly string[] | undefined;
}

/** A guest while it stood still: what it had printed, and all its RAM. */
export interface GuestMoment {
  readonly serial: string;
  readonly memory: Uint8Array;
}

/** A folder for a test's files and sockets, and the firmware that all its machines run. */
export class GuestTest implements AsyncDisposable {
  readonly machine: QemuOptions;
  readonly #folder = new TemporaryFolder();
  readonly #guest: TinyGuest;

  private constructor(guest: TinyGuest, machine: QemuOptions) {
    this.#guest = guest;
    this.machine = machine;
  }

  /** @param roundPauseMs How long the guest rests after each round of writing to all its pages. */
  static async create(machine: GuestMachine = {}, roundPauseMs = 50): Promise<GuestTest> {
    const guest = await assembleTinyGuest({
      roundPauseMs,
      noiseBytes: 2 * MIB,
      textBytes: 4 * MIB,
    });
    const memoryMib = machine.memoryMib ?? 48;
    return new GuestTest(guest, {
      name: "vm",
      ...machine,
      memoryMib,
      bios: guest.path,
    });
  }

  /** The folder. */
  get folder(): string {
    return this.#folder.path;
  }

  /** A path in the folder. */
  path(name: string): string {
    return this.#folder.file(name);
  }

  /** A running guest that has finished its first round, with multifd set up. */
  async startSource(side: Side): Promise<Qemu> {
    const vm = await Qemu.start({
      ...this.machine,
      name: "source",
      version: side.version,
      extraArgs: this.#arguments(side),
    });
    await configure(vm, side);
    await vm.waitSerial(/00000001\n/, LimitMs.migration);
    return vm;
  }

  /** A machine that waits to be told where to listen, and stays stopped after the migration. */
  async startTarget(side: Side, machine: GuestMachine = {}): Promise<Qemu> {
    const vm = await Qemu.start({
      ...this.machine,
      ...machine,
      memoryMib: this.machine.memoryMib,
      name: "target",
      version: side.version,
      incoming: "defer",
      paused: true,
      extraArgs: this.#arguments(side, machine),
    });
    await configure(vm, side);
    return vm;
  }

  #arguments({ tlsObject, tlsAuthz }: Side, machine: GuestMachine = {}): readonly string[] {
    const { extraArgs = [] } = { ...this.machine, ...machine };
    const objects = [
      ...(tlsObject === undefined ? [] : [`${tlsObject},id=tls0`]),
      ...(tlsAuthz === undefined ? [] : [`authz-simple,id=a0,identity=${tlsAuthz}`]),
    ];
    return [...extraArgs, ...objects.flatMap((one) => ["-object", one])];
  }

  /** Bytes of the guest's RAM. */
  get ramBytes(): number {
    return this.machine.memoryMib * MIB;
  }

  /** All RAM of a stopped machine. */
  async memoryOf(vm: Qemu): Promise<Uint8Array> {
    return vm.readPhysicalMemory(0, this.ramBytes);
  }

  /** What there is to see of a stopped machine. */
  async momentOf(vm: Qemu): Promise<GuestMoment> {
    return { serial: await vm.serialOutput(), memory: await this.memoryOf(vm) };
  }

  /**
   * Proves that `target`, still stopped, is the source at the moment it stopped: all memory is equal,
   * the counters are in order, the serial count goes on with the next number, and they still move.
   *
   * @param source The source, stopped, or what was seen of it.
   */
  async expectGoesOn(source: Qemu | GuestMoment, target: Qemu): Promise<void> {
    const { serial, memory } = source instanceof Qemu ? await this.momentOf(source) : source;
    const before = await this.memoryOf(target);
    expect(firstDifference(before, memory)).toBe("none");
    this.#check(before);
    await target.cont();
    const goesOn = await target.waitSerial(/([0-9a-f]{8}\n){3}/, LimitMs.migration);
    expect(checkSerialGoesOn(serial, goesOn)).toBeGreaterThan(2);
    await target.stop();
    const after = await this.memoryOf(target);
    this.#check(after);
    expect(firstDifference(after, before)).not.toBe("none");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest[Symbol.asyncDispose]();
    this.#folder[Symbol.dispose]();
  }

  #check(memory: Uint8Array): void {
    checkCounters(memory.subarray(COUNTER_START), COUNTER_START, this.ramBytes);
  }
}

/** Sets capabilities and parameters of one side. */
export async function configure(vm: Qemu, side: Side): Promise<void> {
  await vm.setCapabilities({
    multifd: true,
    "return-path": side.returnPath ?? true,
    // Not in QEMU before 8.1, so only where it is asked for.
    ...(side.switchoverAck === undefined ? {} : { "switchover-ack": side.switchoverAck }),
    "validate-uuid": side.validateUuid ?? false,
  });
  await vm.setParameters({
    "multifd-channels": side.channels,
    "multifd-compression": side.compression,
    "max-bandwidth": UNLIMITED,
    "downtime-limit": UNHURRIED_MS,
    ...(side.tlsObject === undefined ? {} : { "tls-creds": "tls0" }),
    ...(side.tlsAuthz === undefined ? {} : { "tls-authz": "a0" }),
    ...(side.zeroPageDetection === undefined
      ? {}
      : { "zero-page-detection": side.zeroPageDetection }),
  });
}

/** Makes migrations of a running guest last for ever, so that there is time to disturb them. */
export async function slowDown(source: Qemu): Promise<void> {
  // Both: a source that thinks it can end within its downtime does so at full speed.
  await source.setParameters({ "max-bandwidth": 8 * MIB, "downtime-limit": 1 });
}

/** Undoes {@link slowDown}. */
export async function speedUp(source: Qemu): Promise<void> {
  await source.setParameters({ "max-bandwidth": UNLIMITED, "downtime-limit": UNHURRIED_MS });
}

/** The URI QEMU understands for an endpoint of ours. */
export function uriOf(endpoint: string): string {
  return endpoint.startsWith("unix:") ? endpoint : `tcp:${endpoint}`;
}

/** An endpoint of ours for QEMU's URI. */
export function endpointOf(uri: string): string {
  return uri.replace(/^tcp:/, "");
}

/**
 * Starts a migration that goes through at least `rounds` rounds of dirty pages before the guest may
 * be stopped.
 */
export async function migrateWithRounds(
  source: Qemu,
  uri: string,
  rounds: number,
  compression: CompressionMethod,
): Promise<void> {
  // Slow enough for a first round of more than 100 ms: before that QEMU knows no bandwidth, and ends
  // without looking for dirty pages again. Nor does it look again with a downtime of 0.
  const rate = compression === "none" ? 100 * MIB : 10 * MIB;
  await source.setParameters({ "downtime-limit": 1, "max-bandwidth": rate });
  await source.migrate(uri);
  for (;;) {
    const { status, ram } = await source.queryMigrate();
    if (["completed", "failed", "cancelled"].includes(status)) break; // the caller sees it
    if ((ram?.dirtySyncCount ?? 0) > rounds) break;
    await Bun.sleep(10);
  }
  await speedUp(source);
}

/**
 * Starts another migration after a failed one. QEMU reports the failure before it has cleared up, and
 * one that is asked too early refuses for ever after: it has left its resting state by then.
 */
export async function migrateAgain(source: Qemu, uri: string): Promise<void> {
  const deadline = performance.now() + LimitMs.migration;
  const isClearingUp = async (): Promise<boolean> =>
    JSON.stringify(await source.execute("query-yank")).includes('"migration"');
  while (await isClearingUp()) {
    if (performance.now() > deadline) {
      noteBreakdown("source does not end a failed migration");
      throw new Error("QEMU does not end a failed migration");
    }
    await Bun.sleep(10);
  }
  await source.migrate(uri);
}

function firstDifference(left: Uint8Array, right: Uint8Array): string {
  if (left.byteLength !== right.byteLength)
    return `${left.byteLength} to ${right.byteLength} bytes`;
  if (Buffer.compare(left, right) === 0) return "none";
  const at = left.findIndex((byte, index) => byte !== right[index]);
  return `byte 0x${at.toString(16)}: ${left[at]} and ${right[at]}`;
}
