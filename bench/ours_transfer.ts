/**
 * This library as a contender: both sides of a transfer, or the sender of one to a QEMU.
 *
 * @module
 */

import { BenchProcess, transferBetween, transferRun, type SideReport } from "./bench_process.ts";
import { compressionOf, tlsOf, type TransferOptions, type TransferRun } from "./contender.ts";
import type { ReceiverSide } from "./ours_receiver.ts";
import type { SenderSide } from "./ours_sender.ts";
import {
  measureSide,
  MIGRATION_TIMEOUT_MS,
  sharedRamFile,
  startDestination,
  type QemuMigrationOptions,
} from "./qemu_contender.ts";

/** Makes one transfer by this library. */
export async function oursTransfer(options: TransferOptions): Promise<TransferRun> {
  const { image, imageBytes: ramBytes, channels, verify } = options;
  const session = { channels, compression: compressionOf(options) };
  return transferBetween(
    [
      "ours_receiver.ts",
      {
        ramBytes,
        verify,
        session: { ...session, tls: tlsOf(options.tls, "receiver") },
      } satisfies ReceiverSide,
    ],
    (endpoint) => [
      "ours_sender.ts",
      {
        image,
        endpoint,
        session: { ...session, tls: tlsOf(options.tls, "sender") },
      } satisfies SenderSide,
    ],
    verify,
  );
}

/**
 * Makes one transfer from this library to a QEMU that waits with the same machine. The guest comes
 * from the snapshot that QEMU's own contender starts from, with the state of its devices. The clock runs
 * until QEMU's confirmation, which is later than what QEMU counts as its own time.
 */
export async function transferToQemu(
  options: TransferOptions & QemuMigrationOptions,
): Promise<TransferRun> {
  const { snapshot, channels, verify } = options;
  using ramFile = verify ? sharedRamFile() : undefined;
  await using target = await startDestination(options, true, ramFile?.path);
  const uri = await target.migrateIncoming("tcp:127.0.0.1:0");
  const endpoint = uri.replace(/^tcp:/, "");
  const tls = tlsOf(options.tls, "sender");
  const session = { channels, compression: compressionOf(options), tls };
  await using sending = new BenchProcess([
    "ours_sender.ts",
    { snapshot, endpoint, session } satisfies SenderSide,
  ]);
  const measured = measureSide(target);
  const watch = await sending.begin();
  const sent = await sending.next<SideReport>();
  await target.waitMigration(MIGRATION_TIMEOUT_MS);
  const received = measured();
  const { noisy } = watch(sent.cpuSeconds + received.cpuSeconds);
  return { ...transferRun(sent, received), noisy, sha256: await ramFile?.sha256() };
}
