/**
 * One migration from a real QEMU through a relay to another.
 *
 * @module
 */
import { expect } from "bun:test";
import { relay } from "../../mod.ts";
import {
  endpointOf,
  GuestTest,
  migrateWithRounds,
  uriOf,
  type GuestMachine,
  type Side,
} from "./guest_migration.ts";

const LIMIT_MS = 60_000;

/** A pair of QEMUs with a way between them. */
export interface InteropCase extends GuestMachine {
  /** The source. */
  readonly from: Side;
  /** The destination. */
  readonly to: Side;
  /** Default `tcp`. */
  readonly transport?: "tcp" | "unix" | undefined;
  /** Rounds of dirty pages, 0 for a guest that is stopped before. Default 1. */
  readonly rounds?: number | undefined;
}

/** Migrates a guest through a relay, and proves that it goes on at the destination. */
export async function relayBetween(options: InteropCase): Promise<void> {
  const { from, to, transport = "tcp", rounds = 1, ...machine } = options;
  await using guest = await GuestTest.create(machine);
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
  if (rounds > 1) await migrateWithRounds(source, uriOf(relaying.endpoint), rounds);
  else await source.migrate(uriOf(relaying.endpoint));
  const { incoming, outgoing } = await relaying.complete();
  await Promise.all([source.waitMigration(LIMIT_MS), target.waitMigration(LIMIT_MS)]);
  const { ram } = await source.queryMigrate();
  expect(ram?.dirtySyncCount).toBeGreaterThanOrEqual(rounds);
  expect(outgoing.normalPages).toBe(incoming.normalPages);
  expect(outgoing.zeroPages).toBe(incoming.zeroPages);
  expect(incoming.channels).toHaveLength(from.channels);
  expect(outgoing.channels).toHaveLength(to.channels);
  await guest.expectGoesOn(source, target);
}
