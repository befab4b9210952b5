/**
 * What `query-migrate` reports, under names with units.
 *
 * @module
 */

import { asObject, type JsonObject, type JsonValue } from "./qmp.ts";

/** A migration as QEMU sees it; a figure QEMU does not give (yet) is missing. */
export interface MigrateInfo {
  /** QEMU's MigrationStatus: `none`, `setup`, `active`, `completed`, `failed`, `cancelled`, ... */
  readonly status: string;
  /** Why it failed, in QEMU's words. */
  readonly errorDescription?: string | undefined;
  /** From the `migrate` command to the end, connecting included. */
  readonly totalTimeMs?: number | undefined;
  readonly downtimeMs?: number | undefined;
  readonly setupTimeMs?: number | undefined;
  /** RAM figures, once the migration is set up. */
  readonly ram?: MigrateRamInfo | undefined;
  /** Where a destination listens, as a URI for {@link Qemu.migrate}. */
  readonly listenUri?: string | undefined;
}

/** The RAM part of {@link MigrateInfo}. */
interface MigrateRamInfo {
  /** All bytes put on all connections. */
  readonly transferredBytes: number;
  /** Of these, on the multifd channels. */
  readonly multifdBytes: number;
  readonly normalPages: number;
  /** Zero pages; QEMU calls them duplicate. */
  readonly zeroPages: number;
  /** How often the dirty bitmap was fetched: the rounds. */
  readonly dirtySyncCount: number;
  readonly remainingBytes: number;
}

/** Reads the reply of `query-migrate`. A QEMU that never migrated answers `{}`: status `none`. */
export function migrateInfo(reply: JsonObject): MigrateInfo {
  const ram = reply["ram"];
  return {
    status: text(reply["status"]) ?? "none",
    errorDescription: text(reply["error-desc"]),
    totalTimeMs: number(reply["total-time"]),
    downtimeMs: number(reply["downtime"]),
    setupTimeMs: number(reply["setup-time"]),
    ram: ram === undefined ? undefined : ramInfo(asObject(ram, "ram of query-migrate")),
    listenUri: listenUri(reply["socket-address"]),
  };
}

function ramInfo(ram: JsonObject): MigrateRamInfo {
  return {
    transferredBytes: number(ram["transferred"]) ?? 0,
    multifdBytes: number(ram["multifd-bytes"]) ?? 0,
    normalPages: number(ram["normal"]) ?? 0,
    zeroPages: number(ram["duplicate"]) ?? 0,
    dirtySyncCount: number(ram["dirty-sync-count"]) ?? 0,
    remainingBytes: number(ram["remaining"]) ?? 0,
  };
}

function listenUri(addresses: JsonValue | undefined): string | undefined {
  if (!Array.isArray(addresses) || addresses.length === 0) return undefined;
  const [first] = addresses as readonly JsonValue[];
  const address = asObject(first, "socket-address");
  if (address["type"] === "unix") return `unix:${text(address["path"])}`;
  const host = text(address["host"]) ?? "";
  return `tcp:${host.includes(":") ? `[${host}]` : host}:${text(address["port"])}`;
}

function text(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function number(value: JsonValue | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}
