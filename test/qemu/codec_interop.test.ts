/**
 * QEMU's own inflate and zstd reader against every engine and level that differs on the wire, and our
 * engines against what QEMU's compressors write.
 */
import { record, restore, type Compression } from "../../mod.ts";
import { waysHere } from "../codec/codec_pages.ts";
import { endpointOf, GuestTest, uriOf } from "./guest_migration.ts";
import { qemuTest } from "./qemu_case.ts";
import { LimitMs } from "../kit/limits.ts";

const CHANNELS = 2;

const read = waysHere().filter(({ method }) => method === "zlib" || method === "zstd");

/** What is sent to a QEMU; a bandwidth limit makes the automatic level move. */
const sent: readonly (Compression & { readonly maxBandwidth?: number })[] = [
  { method: "zlib", engine: "isal", level: 1 },
  { method: "zlib", engine: "isal", level: 3 },
  { method: "zlib", engine: "isal", level: "auto", maxBandwidth: 16 << 20 },
  { method: "zlib", engine: "libz", level: 0 },
  { method: "zlib", engine: "libz", level: 9 },
  { method: "zstd", level: -5 },
  { method: "zstd", level: 20 },
  { method: "zstd", level: "auto", maxBandwidth: 16 << 20 },
];

for (const { method, engine } of read) {
  qemuTest(
    `codec/${method}/${engine}: reads what QEMU sends, and QEMU reads all levels`,
    async () => {
      await using guest = await GuestTest.create();
      const output = guest.path("vm.rec");
      await using source = await guest.startSource({ channels: CHANNELS, compression: method });
      {
        const compression = { method, engine };
        const endpoint = "127.0.0.1:0";
        await using recorder = await record({ endpoint, channels: CHANNELS, compression, output });
        await source.migrate(uriOf(recorder.endpoint));
        await recorder.complete();
      }
      await source.waitMigration(LimitMs.migration);
      const ways = sent.filter((way) => way.method === method && (way.engine ?? engine) === engine);
      for (const { maxBandwidth, ...compression } of ways) {
        await using target = await guest.startTarget({ channels: CHANNELS, compression: method });
        const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
        await using restorer = await restore({
          input: output,
          endpoint,
          channels: CHANNELS,
          compression,
          maxBandwidth,
        });
        await restorer.complete();
        await target.waitMigration(LimitMs.migration);
        await guest.expectGoesOn(source, target);
      }
    },
  );
}
