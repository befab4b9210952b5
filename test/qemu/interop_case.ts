/**
 * A guest's way from one real QEMU to another, through a recording or through a relay.
 *
 * @module
 */
import { expect } from "bun:test";
import { record, relay, restore, type Compression } from "../../mod.ts";
import {
  endpointOf,
  GuestTest,
  migrateWithRounds,
  uriOf,
  type GuestMachine,
  type Side,
} from "./guest_migration.ts";
import { LimitMs } from "../kit/limits.ts";

/** Pause of a guest that must have written to its pages again before a round is over. */
const BUSY_PAUSE_MS = 1;
const NO_UUID = "00000000-0000-0000-0000-000000000000";

/** A pair of QEMUs with a way between them. */
export interface InteropCase extends GuestMachine {
  /** The source. */
  readonly from: Side;
  /** The destination. */
  readonly to: Side;
  /** Libraries that decode the source's pages and encode the destination's; default: the fastest. */
  readonly engines?: Pick<Compression, "engine"> | undefined;
  /** Default `tcp`. */
  readonly transport?: "tcp" | "unix" | undefined;
  /** Rounds of dirty pages, 0 for a guest that is stopped before. Default 1. */
  readonly rounds?: number | undefined;
}

/** Records a guest, restores it into another QEMU, and proves that it goes on there. */
export async function expectRecordAndRestore(options: InteropCase): Promise<void> {
  const { from, to, engines, transport = "tcp", rounds = 1, ...machine } = options;
  await using guest = await GuestTest.create(machine, rounds > 1 ? BUSY_PAUSE_MS : undefined);
  const output = guest.path("vm.rec");
  await using source = await guest.startSource(from);
  {
    await using recorder = await record({
      endpoint: transport === "tcp" ? "127.0.0.1:0" : `unix:${guest.path("record")}`,
      channels: from.channels,
      compression: { method: from.compression, ...engines },
      switchoverAck: from.switchoverAck,
      output,
    });
    if (rounds === 0) await source.stop();
    if (rounds > 1)
      await migrateWithRounds(source, uriOf(recorder.endpoint), rounds, from.compression);
    else await source.migrate(uriOf(recorder.endpoint));
    const metadata = await recorder.complete();
    expect(metadata.uuid).toBe(options.uuid ?? NO_UUID);
    expect(metadata.blocks.find(({ idstr }) => idstr === "pc.ram")?.bytes).toBe(guest.ramBytes);
    expect(metadata.early.bytes > 0).toBe(options.extraArgs !== undefined);
  }
  await source.waitMigration(LimitMs.busyMigration);
  const { ram } = await source.queryMigrate();
  expect(ram?.dirtySyncCount).toBeGreaterThanOrEqual(rounds);

  await using target = await guest.startTarget(to);
  const uri = transport === "tcp" ? "tcp:127.0.0.1:0" : `unix:${guest.path("restore")}`;
  const endpoint = endpointOf(await target.migrateIncoming(uri));
  await using restorer = await restore({
    input: output,
    endpoint,
    channels: to.channels,
    compression: { method: to.compression, ...engines },
    returnPath: to.returnPath,
    switchoverAck: to.switchoverAck,
    zeroPageDetection: to.zeroPageDetection,
  });
  await restorer.complete();
  await target.waitMigration(LimitMs.busyMigration);
  await guest.expectGoesOn(source, target);
}

/** Migrates a guest through a relay, and proves that it goes on at the destination. */
export async function expectRelay(options: InteropCase): Promise<void> {
  const { from, to, transport = "tcp", rounds = 1, ...machine } = options;
  await using guest = await GuestTest.create(machine, rounds > 1 ? BUSY_PAUSE_MS : undefined);
  await using source = await guest.startSource(from);
  await using target = await guest.startTarget(to);
  const uri = await target.migrateIncoming(
    transport === "tcp" ? "tcp:127.0.0.1:0" : `unix:${guest.path("target")}`,
  );
  await using relaying = await relay({
    listen: {
      endpoint: transport === "tcp" ? "127.0.0.1:0" : `unix:${guest.path("relay")}`,
      channels: from.channels,
      compression: from.compression,
    },
    connect: {
      endpoint: endpointOf(uri),
      channels: to.channels,
      compression: to.compression,
    },
  });
  if (rounds === 0) await source.stop();
  if (rounds > 1)
    await migrateWithRounds(source, uriOf(relaying.endpoint), rounds, from.compression);
  else await source.migrate(uriOf(relaying.endpoint));
  const { incoming, outgoing } = await relaying.complete();
  await Promise.all([
    source.waitMigration(LimitMs.busyMigration),
    target.waitMigration(LimitMs.busyMigration),
  ]);
  const { ram } = await source.queryMigrate();
  expect(ram?.dirtySyncCount).toBeGreaterThanOrEqual(rounds);
  for (const { rounds: seen, switchoverMs, elapsedMs } of [incoming, outgoing]) {
    expect(seen).toBeGreaterThanOrEqual(1);
    expect(switchoverMs).toBeGreaterThan(0);
    expect(switchoverMs).toBeLessThan(elapsedMs);
  }
  expect(outgoing.rounds).toBe(incoming.rounds);
  expect(outgoing.normalPages).toBe(incoming.normalPages);
  expect(outgoing.zeroPages).toBe(incoming.zeroPages);
  expect(incoming.channels).toHaveLength(from.channels);
  expect(outgoing.channels).toHaveLength(to.channels);
  await guest.expectGoesOn(source, target);
}

/** As {@linkcode expectRelay}, with two relays and an encoding of their own between them. */
export async function expectRelayPair(options: {
  readonly from: Side;
  readonly between: Pick<Side, "channels" | "compression">;
  readonly to: Side;
}): Promise<void> {
  const { from, between, to } = options;
  await using guest = await GuestTest.create();
  await using source = await guest.startSource(from);
  await using target = await guest.startTarget(to);
  const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
  const anyPort = { endpoint: "127.0.0.1:0" };
  await using there = await relay({
    listen: { ...anyPort, ...between },
    connect: { endpoint, channels: to.channels, compression: to.compression },
  });
  await using here = await relay({
    listen: { ...anyPort, channels: from.channels, compression: from.compression },
    connect: { endpoint: there.endpoint, ...between },
  });
  await source.migrate(uriOf(here.endpoint));
  const [near, far] = await Promise.all([here.complete(), there.complete()]);
  await Promise.all([
    source.waitMigration(LimitMs.busyMigration),
    target.waitMigration(LimitMs.busyMigration),
  ]);
  const places = [near.incoming, near.outgoing, far.incoming, far.outgoing];
  expect(places.map(({ channels }) => channels.length)).toEqual([
    from.channels,
    between.channels,
    between.channels,
    to.channels,
  ]);
  expect(new Set(places.map(({ normalPages }) => normalPages)).size).toBe(1);
  expect(new Set(places.map(({ zeroPages }) => zeroPages)).size).toBe(1);
  expect(new Set(places.map(({ rounds }) => rounds)).size).toBe(1);
  expect(near.outgoing.wireBytes).toBe(far.incoming.wireBytes);
  await guest.expectGoesOn(source, target);
}
