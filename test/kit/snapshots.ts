/** Snapshots and the state of a guest as tests need them: written at once, and not for their state. */
import { createSnapshot, type CreateSnapshotOptions, type GuestState } from "../../mod.ts";

/** The state of a guest without any device. */
export const EMPTY_STATE: GuestState = {
  machine: "none",
  uuid: new Uint8Array(16),
  validateUuid: false,
  ramSectionId: 1,
  early: new Uint8Array(),
  switchoverStart: false,
  devices: Uint8Array.of(0),
};

/** Writes one round to a complete file, which no test needs to survive a power failure. */
export async function saveSnapshot(options: CreateSnapshotOptions): Promise<void> {
  await using writer = await createSnapshot({ sync: false, ...options });
  await writer.write();
  await writer.complete();
}
