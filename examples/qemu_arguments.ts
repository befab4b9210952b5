/**
 * Arguments that only the programs for QEMU have.
 *
 * @module
 */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { ParseArgsConfig } from "node:util";
import type { SessionWarning, SwitchoverAck, SyncMode } from "../mod.ts";
import { oneOf, UsageError } from "./arguments.ts";

/** Options of the programs that take part in a guest's migration. */
export const MIGRATION_OPTIONS = {
  "switchover-ack": { type: "boolean" },
  "switchover-ack-legacy": { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

/** What {@linkcode MIGRATION_OPTIONS} mean, for usage texts. */
export const MIGRATION_USAGE = `\
  --switchover-ack         QEMU has capability switchover-ack on
  --switchover-ack-legacy  the same; QEMU is older than 11.1 and its machine type has no version`;

/** `--switchover-ack` and `--switchover-ack-legacy`. */
export function switchoverAck(values: {
  readonly "switchover-ack"?: boolean | undefined;
  readonly "switchover-ack-legacy"?: boolean | undefined;
}): SwitchoverAck | undefined {
  return values["switchover-ack-legacy"] === true ? "legacy" : values["switchover-ack"];
}

/** Options of the programs that take a guest from a QEMU. */
export const SOURCE_OPTIONS = {
  "require-return-path": { type: "boolean" },
  "no-require-return-path": { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

/** What {@linkcode SOURCE_OPTIONS} mean, for usage texts. */
export const SOURCE_USAGE = `\
  --require-return-path    refuse a QEMU without capability return-path, which gives its guest up as
                           soon as everything is sent, whatever happens here (default)
  --no-require-return-path take such a guest all the same, with a warning on stderr`;

/** `--require-return-path` and its opposite, and what is done with warnings. */
export function sourceOptions(values: {
  readonly "require-return-path"?: boolean | undefined;
  readonly "no-require-return-path"?: boolean | undefined;
}): { requireReturnPath: boolean; onWarning: (warning: SessionWarning) => void } {
  const refused = values["no-require-return-path"] !== true;
  if (!refused && values["require-return-path"] === true) {
    throw new UsageError("Cannot use --require-return-path with --no-require-return-path");
  }
  return {
    requireReturnPath: refused,
    onWarning: ({ message }) => console.error(`warning: ${message}`),
  };
}

/** `--sync-mode`; undefined for `auto`. */
export function syncMode(text = "auto"): SyncMode | undefined {
  const mode = oneOf("--sync-mode", text, ["auto", "round", "section"]);
  return mode === "auto" ? undefined : mode;
}

/**
 * Looks whether a file can be written at `path`: better now than when the guest has arrived.
 *
 * @throws {UsageError} when it cannot.
 */
export async function checkOutputFile(option: string, path: string): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts !== undefined && !facts.isFile()) {
    throw new UsageError(`Cannot use ${option} ${path}: it exists and must be a regular file`);
  }
  const directory = await stat(dirname(path)).catch(() => undefined);
  if (directory?.isDirectory() !== true) {
    throw new UsageError(`Cannot use ${option} ${path}: its directory must exist`);
  }
}
