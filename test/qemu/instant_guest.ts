/**
 * A guest in files of every kind, for restores that have it run before its memory is there.
 *
 * @module
 */
import { expect } from "bun:test";
import {
  compressSnapshot,
  openSnapshot,
  restore,
  writeRecording,
  type InstantProgress,
  type InstantRestoreOptions,
} from "../../mod.ts";
import { endpointOf, GuestTest, type GuestMoment } from "./guest_migration.ts";
import { Qemu } from "./qemu.ts";
import type { QemuVersion } from "./qemu_versions.ts";
import { asText } from "./qmp.ts";
import { checkCounters, checkSerialGoesOn, COUNTER_START } from "./tiny_guest.ts";

const LIMIT_MS = 30_000;
/** One that all versions know; the oldest cannot write snapshots, and restores them all the same. */
const MACHINE = { machine: "pc-q35-7.2", cpu: "qemu64" };

/** Kinds of files. */
export const KINDS = ["snapshot", "compressed", "recording"] as const;

/** How a destination is set. */
export interface InstantTarget {
  readonly version?: QemuVersion | undefined;
  readonly preempt?: boolean | undefined;
  readonly paused?: boolean | undefined;
  readonly memoryMib?: number | undefined;
  /** Properties of its TLS credentials object. */
  readonly tlsObject?: string | undefined;
  /** File that is its RAM, shared. */
  readonly ramFile?: string | undefined;
}

/** See the module comment. */
export class InstantGuest implements AsyncDisposable {
  readonly test: GuestTest;
  /** The guest when it was saved. */
  readonly moment: GuestMoment;

  private constructor(test: GuestTest, moment: GuestMoment) {
    this.test = test;
    this.moment = moment;
  }

  /**
   * @param machine The guest's machine type, of the machine's own QEMU.
   * @param extraArgs Of all machines of the test.
   */
  static async create(
    machine: string = MACHINE.machine,
    extraArgs?: readonly string[],
  ): Promise<InstantGuest> {
    const test = await GuestTest.create({ ...MACHINE, machine, extraArgs });
    await using source = await test.startSource({ channels: 2, compression: "none" });
    await source.stop();
    const moment = await test.momentOf(source);
    await source.setCapabilities({ "mapped-ram": true, "return-path": false });
    await source.migrate(`file:${test.path("snapshot")}`);
    await source.waitMigration(LIMIT_MS);
    using snapshot = await openSnapshot(test.path("snapshot"));
    await compressSnapshot(snapshot, test.path("compressed"));
    const loaded = await snapshot.load();
    const state = snapshot.guestState();
    await writeRecording(test.path("recording"), { ...loaded, state, compression: "none" });
    return new InstantGuest(test, moment);
  }

  /** A machine that waits for the guest. */
  async start(target: InstantTarget = {}): Promise<{ vm: Qemu; endpoint: string }> {
    const { machine } = this.test;
    const { version, preempt = false, paused = false, memoryMib = machine.memoryMib } = target;
    const { ramFile, tlsObject } = target;
    const credentials = tlsObject === undefined ? [] : ["-object", `${tlsObject},id=tls0`];
    const extraArgs = [...(machine.extraArgs ?? []), ...credentials];
    const options = { ...machine, name: "target", version, paused, memoryMib, ramFile, extraArgs };
    const vm = await Qemu.start({ ...options, incoming: "defer" });
    await vm.setCapabilities({
      "postcopy-ram": true,
      ...(preempt ? { "postcopy-preempt": true } : {}),
    });
    if (tlsObject !== undefined) await vm.setParameters({ "tls-creds": "tls0" });
    return { vm, endpoint: endpointOf(await vm.migrateIncoming("tcp:127.0.0.1:0")) };
  }

  /** Restores and proves that the guest goes on with all its memory. */
  async expectRestored(
    target: InstantTarget,
    options: Omit<InstantRestoreOptions, "instant" | "endpoint">,
  ): Promise<InstantProgress> {
    const { vm, endpoint } = await this.start(target);
    await using _ = vm;
    const preempt = target.preempt ?? false;
    await using restorer = await restore({ instant: true, endpoint, preempt, ...options });
    await restorer.running();
    const progress = await restorer.complete();
    expect(progress).toMatchObject({ leftPages: 0 });
    await vm.waitMigration(LIMIT_MS);
    await this.expectGoesOn(vm, target);
    return progress;
  }

  /** Proves that a guest goes on which has moved, byte for byte if it has not run meanwhile. */
  async expectGoesOn(vm: Qemu, { paused = false }: InstantTarget = {}): Promise<void> {
    if (paused) return this.test.expectGoesOn(this.moment, vm);
    const output = await vm.waitSerial(/([0-9a-f]{8}\n){2}/, LIMIT_MS);
    expect(checkSerialGoesOn(this.moment.serial, output)).toBeGreaterThan(1);
    await vm.stop();
    const memory = await this.test.memoryOf(vm);
    checkCounters(memory.subarray(COUNTER_START), COUNTER_START, this.test.ramBytes);
    // Below the counters nothing is written but what the machine itself keeps there.
    expect(Buffer.compare(rest(memory), rest(this.moment.memory))).toBe(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.test[Symbol.asyncDispose]();
  }
}

/** Memory that the guest does not write to. */
function rest(memory: Uint8Array): Uint8Array {
  return memory.subarray(0x10_0000, COUNTER_START);
}

/**
 * Waits until a destination has noticed that its source is gone, and has it wait for another one. Its
 * main thread may stand still, waiting for a page, so that it is asked out of band.
 *
 * @param socket Path where it shall wait.
 * @returns Where it waits.
 */
export async function recoverAt(vm: Qemu, socket: string): Promise<string> {
  await vm.qmp.waitEvent(
    "MIGRATION",
    LIMIT_MS,
    ({ data }) => asText(data["status"], "status") === "postcopy-paused",
  );
  await vm.qmp.executeOutOfBand("migrate-recover", { uri: `unix:${socket}` });
  return `unix:${socket}`;
}
