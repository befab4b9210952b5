/**
 * What a source with postcopy switched on in advance is told. libvirt does that for `--postcopy`, even
 * when the migration never needs it.
 */
import { expect } from "bun:test";
import { listen, record, relay, type MultifdError } from "../../mod.ts";
import { GuestTest, migrateAgain, slowDown, uriOf, type Side } from "./guest_migration.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";
import { LimitMs } from "../kit/limits.ts";

/** Refuses a source with that capability in each place; its guest runs on after all of them. */
async function expectRefused(version: QemuVersion, capability: string): Promise<void> {
  const side: Side = { version, channels: 2, compression: "none" };
  await using guest = await GuestTest.create();
  await using source = await guest.startSource(side);
  await source.setCapabilities({ [capability]: true });
  await slowDown(source);
  const end = { endpoint: "127.0.0.1:0", channels: 2 };
  await using nobody = await listen(end);
  for (const start of [
    () => listen(end),
    () => record({ ...end, output: guest.path("vm.rec") }),
    () => relay({ listen: end, connect: { endpoint: nobody.endpoint, channels: 2 } }),
  ]) {
    await using place = await start();
    const complete: Promise<unknown> = place.complete();
    const ended = complete.catch((error: unknown) => error) as Promise<MultifdError>;
    await migrateAgain(source, uriOf(place.endpoint));
    const { code, message, side: named } = await ended;
    expect([code, named]).toEqual(["ERR_MULTIFD_STREAM_CAPABILITIES", "destination"]);
    expect(message).toContain(`${capability} on, must be off`);
    await expect(source.waitMigration(LimitMs.migration)).rejects.toMatchObject({
      status: "failed",
    });
    await source.waitStatus("running");
  }
}

qemuTest("a source with dirty-bitmaps is told so by receiver, recorder and relay", () =>
  expectRefused("10.0", "dirty-bitmaps"),
);

// Older ones do not take postcopy and multifd together.
qemuTest(
  "a source with postcopy-ram is told so by receiver, recorder and relay",
  () => expectRefused("11.1", "postcopy-ram"),
  undefined,
  ["11.1"],
);
